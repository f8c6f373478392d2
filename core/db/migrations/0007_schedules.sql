-- Runs started by time (schedules) and by a change at an external API (pollers).
--
-- next_at is the whole state of waiting: the first occurrence that has not been dealt with. The leading
-- scheduler reads what comes next (app.upcoming), sleeps until then, starts the run under the idempotency key
-- 'schedule_id:due_at', and moves next_at on. A crash between starting and moving on starts the same key
-- again, which is the same run. So an occurrence starts exactly one run, with any number of schedulers.
--
--              resume, edit                    due: run started, or refused for good
--     paused --------------> armed (next_at) ---------------------------------------> armed (next next_at)
--            <--------------        |  ^
--                 pause             |  | due, refused for now (quota, load, a server is gone): retry_at
--                                   +--+
--
-- Occurrences missed while nobody led: the latest one starts its run, once; the fire names the first missed.

create table schedules (
    schedule_id text primary key,
    tenant_id   text not null references tenants,
    name        text not null,
    cron        text not null,                 -- five fields, local time of "timezone"
    timezone    text not null,                 -- IANA name
    workflow    text not null,
    input       jsonb not null,
    paused      boolean not null default false,
    version     integer not null default 1,    -- one more with every edit
    next_at     timestamptz,                   -- null: paused, or there is no next occurrence
    retry_at    timestamptz,                   -- the occurrence at next_at is tried again then
    last_due_at timestamptz,
    last_run_id text,
    last_error  jsonb,                         -- why the last occurrence started nothing (yet)
    user_id     text,                          -- whoever made it, if a person: the submitter of its runs
    created_by  text not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    unique (tenant_id, schedule_id)
);
create index schedules_tenant on schedules (tenant_id, created_at);
create index schedules_upcoming on schedules (coalesce(retry_at, next_at)) where next_at is not null;
select app.fence('schedules', 'select, insert, update, delete');

-- What became of each occurrence.
create table schedule_fires (
    schedule_id  text not null,
    due_at       timestamptz not null,
    tenant_id    text not null references tenants,
    fired_at     timestamptz not null,
    missed_since timestamptz,                  -- first of the occurrences that this one stands for
    run_id       text,
    error        jsonb,                        -- why it started none
    primary key (schedule_id, due_at),
    foreign key (tenant_id, schedule_id) references schedules (tenant_id, schedule_id) on delete cascade
);
select app.fence('schedule_fires', 'select, insert');

create table pollers (
    poller_id       text primary key,
    tenant_id       text not null references tenants,
    name            text not null,
    url             text not null,
    interval_s      integer not null check (interval_s > 0),
    workflow        text not null,
    input           jsonb not null,
    paused          boolean not null default false,
    version         integer not null default 1,
    next_at         timestamptz,               -- null: paused
    -- What was seen last: validators for a conditional request, the content's hash, the entries' ids.
    etag            text,
    last_modified   text,
    content_hash    bytea,
    entry_ids       text[] not null default '{}',
    failures        integer not null default 0,  -- in a row
    last_polled_at  timestamptz,
    last_changed_at timestamptz,
    last_status     text check (last_status in ('first', 'unchanged', 'changed', 'failed', 'refused')),
    last_error      jsonb,
    last_run_id     text,
    user_id         text,
    created_by      text not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null
);
create index pollers_tenant on pollers (tenant_id, created_at);
create index pollers_upcoming on pollers (next_at) where next_at is not null;
select app.fence('pollers', 'select, insert, update, delete');

-- What the leading scheduler has to do before a moment, soonest first, of all tenants.
create function app.upcoming(p_before timestamptz, p_limit integer)
returns table (kind text, id text, tenant_id text, due_at timestamptz) language sql stable as $$
    select u.kind, u.id, u.tenant_id, u.due_at from (
        (select 'schedule' as kind, s.schedule_id as id, s.tenant_id, coalesce(s.retry_at, s.next_at) as due_at
         from schedules s where app.outside() and s.next_at is not null and coalesce(s.retry_at, s.next_at) < p_before
         order by coalesce(s.retry_at, s.next_at) limit p_limit)
        union all
        (select 'poller', p.poller_id, p.tenant_id, p.next_at
         from pollers p where app.outside() and p.next_at is not null and p.next_at < p_before
         order by p.next_at limit p_limit)
    ) u order by u.due_at limit p_limit
$$;
select app.control('app.upcoming(timestamptz, integer)');

-- Whether any worker holds or could soon hold a run: while it does, dead workers are looked for.
create function app.anything_moves() returns boolean language sql stable as $$
    select app.outside() and (exists (select from slots) or exists (select from queue_entries))
$$;
select app.control('app.anything_moves()');
