-- Runs: what was asked for, where each stands, what happened to it, what it waits for.
--
--              submit               claim                release(ended)
--     (none) ---------> queued -------------> running ------------------> succeeded | failed | cancelled | dead
--                         ^                      | release(parked)
--                         |        wake          v
--                         +------------------ waiting          worker died: running --> queued, or dead (app.recover)
--
-- A run that people cancel ends at once, or, when it did what can be undone, executes once more for that: dead ones too.
--
-- Who moves a run from state to state, and which run starts next, is the story of 0003_queue.sql.

create table runs (
    run_id           text primary key,
    tenant_id        text not null references tenants,
    user_id          text,
    workflow         text not null,
    version          text not null,
    lane             smallint not null check (lane between 0 and 2),  -- 0 urgent, 1 normal, 2 background
    state            text not null check (state in ('queued', 'running', 'waiting',
                                                    'succeeded', 'failed', 'cancelled', 'dead')),
    cause            text,               -- why it waits or is queued; see core.runs.model.Cause
    source           text not null,      -- chat, api, dashboard, cli, schedule, poller, trigger, run
    batch_id         text,
    thread_id        text,
    parent_run_id    text,               -- the run that spawned it, at which of its steps; see 0019_children.sql
    parent_step      integer,
    ancestors        text[] not null default '{}',   -- from the root of the family down to the parent
    forked_from      text,               -- the run whose first steps it was given
    idempotency_key  text,
    request_hash     bytea not null,
    input            jsonb not null,
    output           jsonb,
    outcome          text,               -- the workflow's own word for how it ended, e.g. 'declined'
    error            jsonb,
    progress         jsonb,
    policy_version   integer not null,
    attempt          integer not null default 0,
    cancel_requested boolean not null default false,
    held             boolean not null default false,   -- paused by somebody; see 0020_control.sql
    ready            boolean not null default false,   -- held, and queued as soon as it is resumed
    woken            boolean not null default false,   -- a wait of it was over while it executed: it does not park
    timeout_s        double precision,                 -- how long its workflow lets it last; null: as long as the policy
    compensating     jsonb,                            -- the end to which it is undoing what it did, or null
    recoveries       integer not null default 0,   -- executions that died or broke since submission or retry
    worker_seconds   double precision not null default 0,
    event_seq        integer not null default 0,
    budget_microusd  bigint not null check (budget_microusd >= 0),
    submitted_at     timestamptz not null,
    queued_at        timestamptz not null,
    started_at       timestamptz,
    finished_at      timestamptz,
    unique (tenant_id, run_id),
    check (not held or state in ('running', 'waiting') and not cancel_requested and compensating is null),
    check (not ready or held and state = 'waiting')
);
create unique index runs_idempotency on runs (tenant_id, idempotency_key) where idempotency_key is not null;
-- What lists are narrowed by is in it, so that a list of what hardly any run is (0024) reads it and not the runs.
create index runs_recent on runs (tenant_id, submitted_at desc, run_id desc)
    include (state, workflow, outcome, user_id);
create index runs_by_state on runs (tenant_id, state, submitted_at desc);
create index runs_by_batch on runs (tenant_id, batch_id) where batch_id is not null;
create index runs_held on runs (tenant_id) where held;
create index runs_children on runs (tenant_id, parent_run_id, parent_step, state) where parent_run_id is not null;
create index runs_finished on runs (tenant_id, finished_at desc) where finished_at is not null;
select app.fence('runs', 'select, insert, update');

-- Runs admitted per local day of the tenant: the daily quota, exact because the row serialises.
create table run_days (
    tenant_id text not null references tenants,
    day       date not null,
    runs      integer not null,
    primary key (tenant_id, day)
);
select app.fence('run_days', 'select, insert, update');

-- Count runs admitted on a local day: how many those are now, and how the tenant stands in the queue, looked at after the
-- row of the day is ours: so that nobody else's admissions are missed. With the rights of its caller.
create function app.run_admitted(p_day date, p_runs integer, out admitted integer, out queued integer,
                                 out running integer, out cap integer, out paused boolean, out draining boolean)
language plpgsql as $$
begin
    insert into run_days as d (tenant_id, day, runs) values (app.tenant(), p_day, p_runs)
    on conflict (tenant_id, day) do update set runs = d.runs + excluded.runs
    returning d.runs into admitted;
    select q.queued, q.running, q.cap, q.paused, q.draining into queued, running, cap, paused, draining
    from queue_tenants q where q.tenant_id = app.tenant();
end $$;

-- Transitions and progress of each run, for replay from any position.
create table run_events (
    tenant_id text not null,
    run_id    text not null,
    seq       integer not null,
    at        timestamptz not null,
    kind      text not null,
    data      jsonb not null,
    primary key (run_id, seq),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
select app.fence('run_events', 'select, insert');

create index run_events_said on run_events (at) where kind in ('progress', 'text', 'value');

-- Forget what runs said of themselves before a moment, of all tenants; how many events.
create function app.forget_said(p_before timestamptz, p_limit integer) returns bigint language sql as $$
    with gone as (
        delete from run_events e
        where (e.run_id, e.seq) in (
            select o.run_id, o.seq from run_events o
            where o.kind in ('progress', 'text', 'value') and o.at < p_before and app.outside()
            limit p_limit
        )
        returning 1
    )
    select count(*) from gone
$$;
select app.control('app.forget_said(timestamptz, integer)');

-- What a run waited for is over: told wherever that is done. All else is told by the statement that makes it so. Such an
-- update leaves event_seq to this.
create function app.run_woken() returns trigger language plpgsql as $$
begin
    new.event_seq := new.event_seq + 1;
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    values (new.tenant_id, new.run_id, new.event_seq, new.queued_at, 'woken', jsonb_build_object('cause', old.cause));
    return new;
end $$;
create trigger run_woken before update of state on runs for each row
when (old.state = 'waiting' and new.state = 'queued')
execute function app.run_woken();

-- One row per attempt of a step: the checkpoints. The result and the settlement of its cost are written in one
-- transaction. A later execution of the run is told what is done, or failed for good; all else it does.
create table run_steps (
    tenant_id        text not null,
    run_id           text not null,
    step             integer not null,
    attempt          integer not null,
    name             text not null,
    kind             text not null,   -- step, call, agent, review, timer, event, spawn, children; undo: of step -step
    state            text not null check (state in ('started', 'done', 'failed', 'skipped')),
    result           jsonb,
    error            jsonb,
    undo             boolean not null default false,   -- once done, there is a way to undo it
    aside            boolean not null default false,   -- done, but to be done again: it answers nobody any more
    final            boolean not null default false,   -- failed for good: not tried again unless the run is retried
    cost_microusd    bigint not null default 0,
    model            text,
    started_at       timestamptz not null,
    finished_at      timestamptz,
    primary key (run_id, step, attempt),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
select app.fence('run_steps', 'select, insert, update');

-- What a parked run waits for. Woken = deleted.
create table waits (
    run_id    text not null,
    step      integer not null,
    tenant_id text not null,
    cause     text not null,          -- review, timer, event, rate, endpoint, budget, children
    key       text,                   -- event name, rate-limit name, review id, step that spawned
    wake_at   timestamptz,            -- when it is over by itself
    since     timestamptz not null,
    primary key (run_id, step),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index waits_due on waits (wake_at) where wake_at is not null;
create index waits_key on waits (tenant_id, cause, key);
select app.fence('waits', 'select, insert, update, delete');

-- Events sent to runs (run.event) keep until somebody waits for them.
create table events (
    tenant_id  text not null references tenants,
    name       text not null,
    key        text not null,
    payload    jsonb not null,
    created_at timestamptz not null,
    primary key (tenant_id, name, key)
);
select app.fence('events', 'select, insert');
