-- Runs started by an event, or by a webhook.
--
-- A webhook asks for its run at once: POST /api/v1/hooks/{trigger_id} submits it and answers with it, and a sender
-- that got no answer sends again. What it is signed with is not in these tables: it follows from the installation's
-- secret key, the trigger's id and secret_version.
--
-- An event may be sent by anybody who may submit runs, and is kept whatever becomes of the runs that it starts. So
-- the statement that keeps an event also writes, for every trigger that listens, that its run is to be started:
--
--     event kept ──same statement──► to do (trigger_events, due_at) ──the leading scheduler──► run submitted, row gone
--                                                   ^   │ refused for now (quota, load): due_at is later
--                                                   └───┘ refused for good: row gone, the trigger says why
--
-- The run is submitted under a key made of trigger, event and key; a crash before the row is gone starts the same
-- key again, which is the same run. The second sending of an event inserts nothing, so it starts nothing.

create table triggers (
    trigger_id     text primary key,
    tenant_id      text not null references tenants,
    kind           text not null check (kind in ('webhook', 'event')),
    name           text not null,
    event          text,                       -- the name of the events that it listens for; of kind event only
    workflow       text not null,
    input          jsonb not null,
    paused         boolean not null default false,
    version        integer not null default 1,
    secret_version integer not null default 1, -- one more makes another secret
    last_fired_at  timestamptz,                -- the latest webhook or event that was dealt with
    last_run_id    text,
    last_error     jsonb,                      -- why that one started nothing (yet)
    user_id        text,                       -- whoever made it, if a person: the submitter of its runs
    created_by     text not null,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    unique (tenant_id, trigger_id),
    check ((kind = 'event') = (event is not null))
);
create index triggers_tenant on triggers (tenant_id, created_at);
create index triggers_event on triggers (tenant_id, event) where event is not null and not paused;
select app.fence('triggers', 'select, insert, update, delete');

-- Events whose runs are still to be started.
create table trigger_events (
    tenant_id  text not null references tenants,
    trigger_id text not null,
    name       text not null,
    key        text not null,
    due_at     timestamptz not null,
    primary key (trigger_id, name, key),
    foreign key (tenant_id, trigger_id) references triggers (tenant_id, trigger_id) on delete cascade,
    foreign key (tenant_id, name, key) references events (tenant_id, name, key) on delete cascade
);
create index trigger_events_due on trigger_events (due_at);
create index trigger_events_of_tenant on trigger_events (tenant_id, name, key);
select app.fence('trigger_events', 'select, insert, update, delete');

create function app.listen_to_events() returns trigger language plpgsql as $$
begin
    insert into trigger_events (tenant_id, trigger_id, name, key, due_at)
    select new.tenant_id, t.trigger_id, new.name, new.key, new.created_at from triggers t
    where t.tenant_id = new.tenant_id and t.event = new.name and not t.paused;
    return null;
end $$;
create trigger events_start_runs after insert on events for each row execute function app.listen_to_events();

-- Whose a webhook is, and which of its secrets is in force; no row for a paused one.
create function app.webhook(p_trigger_id text) returns table (tenant_id text, secret_version integer)
language sql stable as $$
    select t.tenant_id, t.secret_version from triggers t
    where app.outside() and t.trigger_id = p_trigger_id and t.kind = 'webhook' and not t.paused
$$;
select app.control('app.webhook(text)');

-- When the next run of an event is to be started; null: none is.
create function app.trigger_events_next() returns timestamptz language sql stable as $$
    select min(e.due_at) from trigger_events e where app.outside()
$$;
select app.control('app.trigger_events_next()');

-- Runs of events to be started now. Tenants take turns, so that one that sent many does not hold up the others.
create function app.trigger_events_due(p_now timestamptz, p_limit integer)
returns table (tenant_id text, trigger_id text, name text, key text) language sql stable as $$
    select e.tenant_id, e.trigger_id, e.name, e.key from (
        select d.*, row_number() over (partition by d.tenant_id order by d.due_at, d.trigger_id, d.name, d.key) as turn
        from trigger_events d where app.outside() and d.due_at <= p_now
    ) e order by e.turn, e.due_at limit p_limit
$$;
select app.control('app.trigger_events_due(timestamptz, integer)');
