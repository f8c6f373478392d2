-- The fair queue: which of the queued runs starts next, and who may hold how many slots.
--
-- The story in one paragraph. A submission inserts a run in state 'queued' and a queue entry. A worker calls
-- app.claim: serialised by one advisory lock, it picks the eligible tenant with the least virtual time, in that
-- tenant a flow, in that flow the oldest entry, and turns the entry into a slot. While the run executes it holds
-- the slot. When it ends, or parks, app.release deletes the slot and trues the virtual time up to the seconds
-- really used. A parked run is a row in waits: no slot, no process. app.wake turns it back into a queue entry.
-- The verbs are in 0010_queue_verbs.sql; core/queue/fairness.py says the same in Python, without a database, and
-- a test compares the two choice by choice.
--
-- Across tenants: start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) in worker-seconds. A claim advances
-- the tenant's virtual time by estimate/weight, the release corrects it by (actual-estimate)/weight. A tenant that
-- had nothing queued or running re-enters at the present virtual time: no credit for idling, no penalty.
--   Caps: a tenant below its cap is eligible. Triggers below refuse a slot beyond it, whoever writes it.
--   Headroom: the last few free slots are kept for quiet tenants: newcomers, whose first run this is since they had
--     none, and then whoever is not ahead of the others; the n-th last slot goes to one that holds fewer than n, or is
--     behind the others by a whole run, because it asks for less than its share. So a quiet tenant starts at once, and
--     one with a backlog, however small its weight, gets no more than its share.
--   Pace: where runs are short, so that a slot comes back every few milliseconds, the headroom is lent, and claims that
--     are open to everybody keep a distance instead: so slots do not come back all at once, and a quiet tenant finds
--     one free or about to be. A claim that is put off says when to make it again: after 128 ms at most.
--   Burst: when nobody is eligible and slots beyond the headroom are free, a tenant may exceed its cap by burst_slots.
--     Its debt grows by one for each second and lent slot over the cap, and shrinks by one for each second and slot
--     under it; there is no burst at a debt of burst_credit_s. A cap lowered under what runs makes no debt. Burst slots
--     are marked, and charged like any other.
-- Inside a tenant: lane, then user. A flow is what one user queued in one lane of one workflow; fresh = false holds
--   the runs that were parked or recovered, which go first. Lanes are strict, and in a lane the user goes next who has
--   the least virtual time (the same queuing, unweighted). But every tenth claim of a tenant takes its oldest run,
--   whatever its lane: with k older runs in its tenant a run starts within 10 (k + 1) claims of that tenant.
--   Flows are passed over while their user, or their workflow, is at a cap of its own.
-- Code: a worker says which code it has (workflow@version) and is given nothing else. It passes over tenants of which it
--   can execute nothing, and does not mark them: others can. A tenant's tenth claim is left to another worker with free
--   slots when its oldest run is of code that only that one has. What no worker has stays queued (cause no_code).
--
-- Each wait for a slot is accounted for by cause: clocks count the seconds in which a tenant was paused or at its
-- cap, or all that it had queued at a cap inside it, and those in which the platform had no worker. An entry keeps what
-- the clocks showed when it was queued; at the claim the differences are the causes. From when to when nobody had the
-- code of a version is written down; of a wait that is looked up when the slot is given back. What is left is the share
-- of the others.
--
-- What happens on failure: every verb is one transaction; a crash before commit changes nothing.

-- What a column may hold, checked when it is written: a check of the table would be read and evaluated for each claim,
-- whatever it changes.
create domain app.amount as integer check (value >= 0);
create domain app.seconds as double precision check (value >= 0);
create domain app.weight as double precision check (value >= 0.001);  -- what is divided by it stays a number

-- The runtime role may look, within its tenant; only the verbs change anything.
create table queue_tenants (
    tenant_id      text primary key references tenants,
    -- By the policy.
    weight         app.weight not null,
    cap            app.amount not null,
    burst_slots    app.amount not null,
    burst_credit_s app.seconds not null,
    user_cap       integer check (user_cap >= 1),
    -- By operators.
    paused         boolean not null default false,   -- nothing is claimed
    draining       boolean not null default false,   -- nothing is admitted
    -- Now.
    queued         app.amount not null default 0,
    running        app.amount not null default 0,
    lent           app.amount not null default 0,    -- of those that run, claimed over the cap
    newcomer       boolean not null default false,   -- nothing of it was claimed since it had nothing queued or running
    blocked        boolean not null default false,   -- all that is queued is at a cap of its user or workflow
    virtual_time   double precision not null default 0,
    user_clock     double precision not null default 0,   -- virtual time at which its last user was served
    turn           bigint not null default 0,             -- claims so far
    -- Until clock_at.
    clock_at       timestamptz not null,
    used_s         double precision not null default 0,   -- worker-seconds served, ever
    debt_s         double precision not null default 0,   -- worker-seconds over the cap, not paid back yet
    capped_s       double precision not null default 0,   -- seconds at the cap or blocked, ever
    paused_s       double precision not null default 0,   -- seconds paused, ever
    eligible       boolean not null generated always as
                       (queued > 0 and running < cap and not paused and not blocked) stored,
    may_burst      boolean not null generated always as
                       (queued > 0 and running >= cap and running < cap + burst_slots and debt_s < burst_credit_s
                        and not paused and not blocked) stored
);
create index queue_tenants_next on queue_tenants (virtual_time, tenant_id) where eligible;
create index queue_tenants_newcomers on queue_tenants (virtual_time, tenant_id) where eligible and newcomer;
create index queue_tenants_burst on queue_tenants (virtual_time, tenant_id) where may_burst;
select app.fence('queue_tenants', 'select');

-- virtual_time and running are those of the user: the same in all flows of that user.
create table queue_flows (
    flow_id      bigint primary key generated always as identity,
    tenant_id    text not null references queue_tenants,
    lane         smallint not null,
    workflow     text not null,
    code         text not null,        -- workflow@version
    user_key     text not null,        -- the user's id; '' for runs that nobody in particular submitted
    fresh        boolean not null,
    queued       app.amount not null default 0,
    head_rank    bigint,               -- of its oldest entry
    running      app.amount not null default 0,
    user_cap     integer,              -- the tenant's, here to be held
    virtual_time double precision not null,
    unique (tenant_id, user_key, lane, code, fresh)
);
create index queue_flows_next on queue_flows (tenant_id, lane, fresh, virtual_time, user_key, workflow, head_rank)
    where queued > 0;
create index queue_flows_oldest on queue_flows (tenant_id, head_rank) where queued > 0;
create index queue_flows_code on queue_flows (code) where queued > 0;
select app.fence('queue_flows', 'select');

-- Workflows with a cap of their own inside a tenant.
create table queue_workflows (
    tenant_id text not null references queue_tenants,
    workflow  text not null,
    cap       integer not null check (cap >= 0),
    running   integer not null check (running >= 0),
    primary key (tenant_id, workflow)
);
select app.fence('queue_workflows', 'select');

create table queue_entries (
    run_id      text primary key,
    tenant_id   text not null,
    flow_id     bigint not null,
    rank        bigint not null,       -- microseconds of queueing; those of resumed runs are far below
    -- What the clocks showed when it was queued.
    capped_s    double precision not null,
    paused_s    double precision not null,
    no_worker_s double precision not null,
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index queue_entries_head on queue_entries (flow_id, rank, run_id);
select app.fence('queue_entries', 'select');

-- No foreign key: a slot is made of a queue entry, which has one, and checking it again would lock each run's row once
-- more, inside the lock that all claims wait for (a third of the claims that four workers make).
create table slots (
    run_id      text primary key,
    tenant_id   text not null,
    worker_id   text not null,
    workflow    text not null,
    user_key    text not null,
    claimed_at  timestamptz not null,
    estimate_s  double precision not null,   -- what the claim charged
    burst       boolean not null,            -- claimed over the tenant's cap
    -- Seconds of the wait by cause; the rest of it was the share of others.
    capped_s    double precision not null,
    paused_s    double precision not null,
    no_worker_s double precision not null
);
create index slots_worker on slots (worker_id);
select app.fence('slots', 'select');

create table workers (
    worker_id    text primary key,
    slots        integer not null check (slots > 0),
    started_at   timestamptz not null,
    heartbeat_at timestamptz not null,
    held         integer not null default 0 check (held between 0 and slots),
    draining     boolean not null default false,
    codes        text[],               -- the code it has, in order; null: whatever there is
    -- Tenants up to here had nothing of its code when it last asked; null: it does not pass over so many. taken: something
    -- behind them had, since then. moved: when it last went on. See app.next_served in 0021_versions.sql.
    behind_time   double precision,
    behind_tenant text,
    behind_taken  boolean not null default false,
    behind_since  timestamptz,
    behind_moved  timestamptz
);

-- One row. The virtual time at which the last claim was made that was open to everybody; the recent mean of what claims
-- charged, and until when they have been spaced out; the most slots that may be held on the whole platform (null: as
-- many as workers have), the seconds in which there was no worker: until alive_until, when not null; and when a worker
-- that passed over a tenant last woke the others.
create table queue_platform (
    one          boolean primary key default true check (one),
    virtual_time double precision not null default 0,
    mean_s       double precision not null default 1,
    paced_until  timestamptz not null default 'epoch',
    cap          integer check (cap >= 0),
    no_worker_s  double precision not null default 0,
    alive_until  timestamptz,
    passed_at    timestamptz not null default 'epoch'
);
insert into queue_platform (alive_until) values ('epoch');

-- From when to when no worker that takes runs had a code ('*': of workers that execute whatever there is). The first gap
-- of a code begins before all time; one that lasts ends at infinity. Written only when workers come and go; a code that
-- nobody has ever had is not here.
create table code_gaps (
    code    text not null,
    gone_at timestamptz not null,
    back_at timestamptz not null check (back_at > gone_at),
    primary key (code, back_at)
);

-- Seconds between a claim and the next that is open to everybody; null where slots come back so seldom that the
-- headroom is kept instead. p_mean_s: what claims charged of late; p_slots: all that there are. core/queue/pace.py says
-- the same; where the numbers are from: core/decisions/0013.
create function app.spacing_s(p_mean_s double precision, p_slots integer) returns double precision
language sql immutable as $$
    select case when p_mean_s <= least(0.7, 0.035 * p_slots::double precision) then 0.9 * p_mean_s / p_slots end
$$;

-- Until when open claims are spaced out after one more claim, of whomever; never by more than 128 ms, nor where they
-- are not.
create function app.paced_until(p_until timestamptz, p_space_s double precision, p_now timestamptz) returns timestamptz
language sql stable as $$
    select case when p_space_s is null then p_until
                else least(greatest(p_until, p_now) + make_interval(secs => p_space_s), p_now + interval '128 ms') end
$$;

-- Recent mean of worker-seconds per claim and workflow: what a claim charges in advance.
create table run_estimates (
    tenant_id  text not null references tenants,
    workflow   text not null,
    estimate_s double precision not null,
    primary key (tenant_id, workflow)
);
select app.fence('run_estimates', 'select');

-- The caps, held by the tables themselves: no statement takes a slot beyond one. A cap may be lowered under what runs
-- already; then nothing starts until enough has ended. Where the condition is false nothing is called.
create function app.refuse_slot() returns trigger language plpgsql as $$
begin
    raise check_violation using message = format('A slot beyond the cap of %s %s.', tg_table_name, new.tenant_id);
end $$;

create trigger cap before update on queue_tenants for each row
    when (new.running > old.running and new.running > new.cap + new.burst_slots) execute function app.refuse_slot();
create trigger cap before update on queue_workflows for each row
    when (new.running > old.running and new.running > new.cap) execute function app.refuse_slot();
create trigger cap before update on queue_flows for each row
    when (new.running > old.running and new.running > new.user_cap) execute function app.refuse_slot();

-- That of the platform is one of all workers together, so it is looked up; whoever claims has the lock already, and so
-- has whoever changes the cap.
create function app.refuse_platform_slot() returns trigger language plpgsql as $$
declare most integer := (select p.cap from queue_platform p);
begin
    if most is null then return new; end if;
    perform pg_advisory_xact_lock(7301);
    if new.held + (select coalesce(sum(w.held), 0) from workers w where w.worker_id <> new.worker_id) > most then
        raise check_violation using message = format('A slot beyond the cap of the platform for %s.', new.worker_id);
    end if;
    return new;
end $$;
create trigger cap before update on workers for each row
    when (new.held > old.held) execute function app.refuse_platform_slot();

-- A tenant's clocks go on whenever clock_at does: whoever changes running, cap or paused sets it to the present. All of
-- them stand still while a tenant is below its cap, not blocked, owes nothing and is not paused.
create function app.queue_clocks() returns trigger language plpgsql as $$
declare passed_s double precision := greatest(0, extract(epoch from new.clock_at - old.clock_at));
begin
    -- Machines differ a little, and who waits for a lock comes late: no second is counted twice. One that is far behind
    -- has been set back.
    if new.clock_at < old.clock_at and new.clock_at > old.clock_at - interval '8 seconds' then
        new.clock_at := old.clock_at;
        return new;
    end if;
    new.debt_s := greatest(0, old.debt_s + least(old.running - old.cap, old.lent) * passed_s);
    if old.paused then
        new.paused_s := old.paused_s + passed_s;
    elsif old.running >= old.cap or old.blocked then
        new.capped_s := old.capped_s + passed_s;
    end if;
    return new;
end $$;
create trigger clocks before update on queue_tenants for each row
    when (new.clock_at <> old.clock_at and (old.running >= old.cap or old.blocked or old.debt_s > 0 or old.paused))
    execute function app.queue_clocks();
