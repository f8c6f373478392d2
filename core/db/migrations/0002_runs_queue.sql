-- Runs, and the fair queue that decides which run starts next.
--
-- The story in one paragraph. A submission inserts a run in state 'queued' and a queue entry. A worker
-- calls app.claim: serialised by one advisory lock, it picks the eligible tenant with the least virtual
-- time, takes the head of that tenant's queue, and turns the entry into a slot. While the run executes it
-- holds the slot. When it ends, or parks, app.release deletes the slot and trues the virtual time up to
-- the seconds really used. A parked run is a row in waits: no slot, no process. app.wake turns it back
-- into a queue entry at the head of its lane.
--
--              submit               claim                release(ended)
--     (none) ---------> queued -------------> running ------------------> succeeded | failed | cancelled
--                         ^                      | release(parked)
--                         |        wake          v
--                         +------------------ waiting          worker died: running --> queued (app.recover)
--
-- Fairness is start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) in worker-seconds: a claim
-- advances the tenant's virtual time by estimate/weight, the release corrects it by (actual-estimate)/weight.
-- A tenant that had nothing queued or running re-enters at the current virtual time: no credit for idling.
-- What happens on failure: every function here is one transaction; a crash before commit changes nothing.

create table runs (
    run_id           text primary key,
    tenant_id        text not null references tenants,
    user_id          text,
    workflow         text not null,
    version          text not null,
    lane             smallint not null check (lane between 0 and 2),  -- 0 urgent, 1 normal, 2 background
    state            text not null check (state in ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    cause            text,               -- why it waits or is queued; see core.runs.model.Cause
    source           text not null,      -- chat, api, schedule, poller, run
    batch_id         text,
    thread_id        text,
    parent_run_id    text,
    idempotency_key  text,
    request_hash     bytea not null,
    input            jsonb not null,
    output           jsonb,
    outcome          text,               -- the workflow's own word for how it ended, e.g. 'declined'
    error            jsonb,
    progress         jsonb,
    policy_version   integer not null,
    attempt          integer not null default 0,
    resume_step      integer,            -- engine step to rewind to when a wait is over
    cancel_requested boolean not null default false,
    worker_seconds   double precision not null default 0,
    event_seq        integer not null default 0,
    budget_microusd  bigint not null check (budget_microusd >= 0),
    submitted_at     timestamptz not null,
    queued_at        timestamptz not null,
    started_at       timestamptz,
    finished_at      timestamptz,
    unique (tenant_id, run_id)
);
create unique index runs_idempotency on runs (tenant_id, idempotency_key) where idempotency_key is not null;
create index runs_recent on runs (tenant_id, submitted_at desc, run_id desc);
create index runs_by_state on runs (tenant_id, state, submitted_at desc);
create index runs_by_batch on runs (tenant_id, batch_id) where batch_id is not null;
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

-- One row per attempt of a step. The result and the settlement of its cost are written in one transaction.
create table run_steps (
    tenant_id        text not null,
    run_id           text not null,
    step             integer not null,
    attempt          integer not null,
    name             text not null,
    kind             text not null,   -- step, call, agent, review, sleep, event
    state            text not null check (state in ('started', 'done', 'failed')),
    result           jsonb,
    error            jsonb,
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
    cause     text not null,          -- review, timer, event, rate, budget, no_worker
    key       text,                   -- event name, rate-limit name, review id
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

-- The fair queue. The runtime role may look, within its tenant; only the functions below change anything.
create table queue_tenants (
    tenant_id    text primary key references tenants,
    weight       double precision not null check (weight > 0),
    cap          integer not null check (cap >= 0),
    paused       boolean not null default false,
    virtual_time double precision not null default 0,
    queued       integer not null default 0 check (queued >= 0),
    running      integer not null default 0 check (running >= 0),
    used_s       double precision not null default 0,   -- worker-seconds served, ever
    eligible     boolean not null generated always as (queued > 0 and running < cap and not paused) stored
);
create index queue_tenants_next on queue_tenants (virtual_time, tenant_id) where eligible;
create index queue_tenants_quiet on queue_tenants (virtual_time, tenant_id) where eligible and running = 0;
select app.fence('queue_tenants', 'select');

create table queue_entries (
    run_id     text primary key,
    tenant_id  text not null,
    lane       smallint not null,
    rank       bigint not null,       -- microseconds of submission; resumed runs are far below
    estimate_s double precision not null check (estimate_s > 0),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index queue_entries_head on queue_entries (tenant_id, lane, rank);
select app.fence('queue_entries', 'select');

create table slots (
    run_id     text primary key,
    tenant_id  text not null,
    worker_id  text not null,
    claimed_at timestamptz not null,
    estimate_s double precision not null,
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index slots_worker on slots (worker_id);
select app.fence('slots', 'select');

create table workers (
    worker_id    text primary key,
    slots        integer not null check (slots > 0),
    started_at   timestamptz not null,
    heartbeat_at timestamptz not null,
    held         integer not null default 0 check (held between 0 and slots),
    draining     boolean not null default false
);

-- One row: the virtual time at which the last claim was made. Written by app.claim only.
create table queue_clock (
    one          boolean primary key default true check (one),
    virtual_time double precision not null default 0
);
insert into queue_clock default values;

-- Recent mean of worker-seconds per claim and workflow: what a claim charges in advance.
create table run_estimates (
    tenant_id  text not null references tenants,
    workflow   text not null,
    estimate_s double precision not null,
    primary key (tenant_id, workflow)
);
select app.fence('run_estimates', 'select');
