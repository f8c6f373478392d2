-- The fair queue's verbs. Read the story at the top of 0002_runs_queue.sql first.
--
-- Lock order, everywhere: queue_tenants row(s) -> runs row(s) -> workers row. Whoever locks more than one
-- queue_tenants row holds the advisory lock 7301 first. So two verbs can wait for each other, never in a ring.
--
-- Verbs called on behalf of a tenant only touch the tenant of the transaction (app.tenant()). Those of workers,
-- scheduler and operators look across tenants and refuse inside a tenant's transaction (app.outside()).

-- Put runs in state 'queued' into the queue. head: at the front of their lane (resumed runs).
-- Returns how many entered.
create function app.queue_push(p_run_ids text[], p_head boolean, p_now timestamptz) returns integer
language plpgsql as $$
declare entered integer;
begin
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    insert into queue_entries (run_id, tenant_id, lane, rank, estimate_s)
    select r.run_id, r.tenant_id, r.lane,
           (extract(epoch from p_now) * 1e6)::bigint + u.position
               - case when p_head then 1000000000000000000 else 0 end,
           coalesce(e.estimate_s, 1.0)
    from unnest(p_run_ids) with ordinality as u(run_id, position)
    join runs r on r.run_id = u.run_id and r.tenant_id = app.tenant() and r.state = 'queued'
    left join run_estimates e on e.tenant_id = r.tenant_id and e.workflow = r.workflow
    on conflict (run_id) do nothing;
    get diagnostics entered = row_count;
    -- A tenant that was idle re-enters at the present: no credit for the past, no penalty.
    update queue_tenants q
    set queued = q.queued + entered,
        virtual_time = case when q.queued + q.running = 0
                            then greatest(q.virtual_time, (select c.virtual_time from queue_clock c))
                            else q.virtual_time end
    where q.tenant_id = app.tenant();
    return entered;
end $$;
select app.control('app.queue_push(text[], boolean, timestamptz)');

-- The one door through which a run starts. Claims up to p_max runs for a worker, fairly.
-- p_headroom: share of all slots (at least one slot when there are two or more) that only tenants with
-- nothing running may take, so that a quiet tenant starts at once while others are backlogged.
create function app.claim(p_worker text, p_max integer, p_headroom double precision, p_now timestamptz)
returns table (run_id text, tenant_id text, user_id text, workflow text, version text, input jsonb,
               attempt integer, resume_step integer, thread_id text, batch_id text, budget_microusd bigint,
               submitted_at timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
    next_tenant queue_tenants%rowtype;
    head        queue_entries%rowtype;
    free        integer;
    reserved    integer;
    mine        integer;
    claimed     text[] := '{}';
begin
    perform app.outside();
    perform pg_advisory_xact_lock(7301);
    select coalesce(sum(w.slots - w.held), 0), case when sum(w.slots) >= 2
           then greatest(1, ceil(sum(w.slots) * p_headroom))::integer else 0 end
    into free, reserved
    from workers w where not w.draining and w.heartbeat_at > p_now - interval '1 minute';
    select least(p_max, w.slots - w.held) into mine from workers w where w.worker_id = p_worker and not w.draining;

    while coalesce(mine, 0) > 0 loop
        if free > reserved then
            select * into next_tenant from queue_tenants q where q.eligible
            order by q.virtual_time, q.tenant_id limit 1 for update;
        else
            select * into next_tenant from queue_tenants q where q.eligible and q.running = 0
            order by q.virtual_time, q.tenant_id limit 1 for update;
        end if;
        exit when not found;

        select * into strict head from queue_entries e where e.tenant_id = next_tenant.tenant_id
        order by e.lane, e.rank limit 1;
        delete from queue_entries e where e.run_id = head.run_id;
        insert into slots values (head.run_id, head.tenant_id, p_worker, p_now, head.estimate_s);
        update queue_tenants q
        set queued = q.queued - 1, running = q.running + 1,
            virtual_time = q.virtual_time + head.estimate_s / q.weight
        where q.tenant_id = next_tenant.tenant_id;
        update queue_clock c set virtual_time = greatest(c.virtual_time, next_tenant.virtual_time);
        claimed := claimed || head.run_id;
        mine := mine - 1;
        free := free - 1;
    end loop;

    update runs r set state = 'running', cause = null, attempt = r.attempt + 1,
                      started_at = coalesce(r.started_at, p_now)
    where r.run_id = any(claimed);
    update workers w set held = w.held + cardinality(claimed), heartbeat_at = p_now
    where w.worker_id = p_worker and cardinality(claimed) > 0;
    return query
        select r.run_id, r.tenant_id, r.user_id, r.workflow, r.version, r.input, r.attempt, r.resume_step,
               r.thread_id, r.batch_id, r.budget_microusd, r.submitted_at
        from unnest(claimed) with ordinality as c(run_id, position) join runs r on r.run_id = c.run_id
        order by c.position;
end $$;
select app.control('app.claim(text, integer, double precision, timestamptz)');

-- Give a slot back and pay for the seconds really used. Null when this worker no longer owns the run:
-- then somebody else does, and the caller must write nothing about it.
create function app.release(p_run_id text, p_worker text, p_now timestamptz) returns double precision
language plpgsql as $$
#variable_conflict use_column
declare
    held     slots%rowtype;
    served_s double precision;
begin
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    delete from slots s where s.run_id = p_run_id and s.worker_id = p_worker and s.tenant_id = app.tenant()
    returning * into held;
    if not found then return null; end if;
    served_s := greatest(0, extract(epoch from p_now - held.claimed_at));
    update queue_tenants q
    set running = q.running - 1, used_s = q.used_s + served_s,
        virtual_time = q.virtual_time + (served_s - held.estimate_s) / q.weight
    where q.tenant_id = held.tenant_id;
    update runs r set worker_seconds = r.worker_seconds + served_s where r.run_id = p_run_id;
    insert into slot_uses (tenant_id, released_at, run_id, worker_id, queued_at, claimed_at)  -- see 0009
    select held.tenant_id, p_now, held.run_id, held.worker_id, r.queued_at, held.claimed_at
    from runs r where r.run_id = held.run_id;
    insert into run_estimates as e (tenant_id, workflow, estimate_s)
    select r.tenant_id, r.workflow, greatest(0.001, served_s) from runs r where r.run_id = p_run_id
    on conflict (tenant_id, workflow) do update
        set estimate_s = greatest(0.001, 0.8 * e.estimate_s + 0.2 * excluded.estimate_s);
    update workers w set held = w.held - 1 where w.worker_id = p_worker;
    return served_s;
end $$;
select app.control('app.release(text, text, timestamptz)');

-- A wait is over: delete it and, if its run is parked, queue the run at the head of its lane. A run that
-- has not parked yet finds the wait gone when it tries to, and goes on. False when there was no such wait.
create function app.wake(p_run_id text, p_step integer, p_now timestamptz) returns boolean
language plpgsql as $$
begin
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    delete from waits where run_id = p_run_id and step = p_step and tenant_id = app.tenant();
    if not found then return false; end if;
    update runs set state = 'queued', cause = null, queued_at = p_now
    where run_id = p_run_id and state = 'waiting' and tenant_id = app.tenant();
    if found then
        perform app.queue_push(array[p_run_id], true, p_now);
    end if;
    return true;
end $$;
select app.control('app.wake(text, integer, timestamptz)');

-- Wake every wait whose time has come, tenant by tenant. Returns the runs queued.
create function app.wake_due(p_now timestamptz, p_limit integer)
returns table (tenant_id text, run_id text, step integer, cause text)
language plpgsql as $$
#variable_conflict use_column
declare due record;
begin
    perform app.outside();
    perform pg_advisory_xact_lock(7301);
    for due in select w.tenant_id, w.run_id, w.step, w.cause from waits w
               where w.wake_at <= p_now order by w.wake_at limit p_limit
    loop
        perform set_config('app.tenant', due.tenant_id, true);
        if app.wake(due.run_id, due.step, p_now) then
            tenant_id := due.tenant_id; run_id := due.run_id; step := due.step; cause := due.cause;
            return next;
        end if;
    end loop;
    perform set_config('app.tenant', '', true);
end $$;
select app.control('app.wake_due(timestamptz, integer)');

-- When the next wait is over by itself; null: none. The scheduler sleeps until then.
create function app.next_wake() returns timestamptz language sql stable as $$
    select min(wake_at) from waits where app.outside()
$$;
select app.control('app.next_wake()');

-- Cancel: at once when queued or waiting, by request when running; what it had asked people is closed. Returns the
-- state it was in, null when there is no such run. Reviews are locked before the queue, as where they are decided.
create function app.queue_cancel(p_run_id text, p_now timestamptz) returns text
language plpgsql as $$
declare was text;
begin
    perform 1 from reviews where tenant_id = app.tenant() and run_id = p_run_id and state = 'open' for update;
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    select state into was from runs where run_id = p_run_id and tenant_id = app.tenant() for update;
    if was = 'queued' then
        delete from queue_entries where run_id = p_run_id;
        update queue_tenants set queued = queued - 1 where tenant_id = app.tenant();
    elsif was = 'waiting' then
        delete from waits where run_id = p_run_id;
        update reviews set state = 'cancelled', decided_at = p_now where run_id = p_run_id and state = 'open';
    end if;
    if was in ('queued', 'waiting') then
        update runs set state = 'cancelled', cause = null, finished_at = p_now where run_id = p_run_id;
    elsif was = 'running' then
        update runs set cancel_requested = true where run_id = p_run_id;
    end if;
    return was;
end $$;
select app.control('app.queue_cancel(text, timestamptz)');

-- Runs that a worker executes and somebody wants to stop.
create function app.cancelled_here(p_worker text) returns table (run_id text) language sql stable as $$
    select s.run_id from slots s join runs r on r.run_id = s.run_id
    where s.worker_id = p_worker and r.cancel_requested and app.outside()
$$;
select app.control('app.cancelled_here(text)');

-- A worker says that it lives, with how many slots. Returns how many it holds here: more than it knows of, if the
-- answer to a claim was lost with the connection.
create function app.worker_heartbeat(p_worker text, p_slots integer, p_draining boolean, p_now timestamptz)
returns integer language sql as $$
    insert into workers (worker_id, slots, started_at, heartbeat_at, draining)
    select p_worker, p_slots, p_now, p_now, p_draining where app.outside()
    on conflict (worker_id) do update set heartbeat_at = p_now, draining = p_draining
    returning held
$$;
select app.control('app.worker_heartbeat(text, integer, boolean, timestamptz)');

-- A worker left cleanly; it must hold nothing.
create function app.worker_leave(p_worker text) returns boolean language plpgsql as $$
begin
    delete from workers where worker_id = p_worker and held = 0 and app.outside();
    return found;
end $$;
select app.control('app.worker_leave(text)');

-- Take back the runs of workers that have not been heard of since p_dead_before, and those that one worker does
-- not know of (p_keep: what it knows): queue them at the head of their lanes and pay for what was used.
create function app.recover(p_worker text, p_keep text[], p_dead_before timestamptz, p_now timestamptz)
returns table (tenant_id text, run_id text, worker_id text)
language plpgsql as $$
#variable_conflict use_column
declare lost record;
begin
    perform app.outside();
    perform pg_advisory_xact_lock(7301);
    for lost in select s.* from slots s join workers w on w.worker_id = s.worker_id
                where (w.worker_id = p_worker and s.run_id <> all (p_keep)) or w.heartbeat_at < p_dead_before
                order by s.tenant_id
    loop
        perform set_config('app.tenant', lost.tenant_id, true);
        if app.release(lost.run_id, lost.worker_id, p_now) is not null then
            update runs r set state = 'queued', queued_at = p_now where r.run_id = lost.run_id;
            perform app.queue_push(array[lost.run_id], true, p_now);
            tenant_id := lost.tenant_id; run_id := lost.run_id; worker_id := lost.worker_id;
            return next;
        end if;
    end loop;
    perform set_config('app.tenant', '', true);
    delete from workers w where w.held = 0 and w.heartbeat_at < p_dead_before;
end $$;
select app.control('app.recover(text, text[], timestamptz, timestamptz)');

-- How many slots are alive: the estimate of a queued run's start, and cause "no worker", need it.
create function app.live_slots(p_alive_since timestamptz) returns integer language sql stable as $$
    select coalesce(sum(slots), 0)::integer from workers where heartbeat_at >= p_alive_since and not draining
$$;
select app.control('app.live_slots(timestamptz)');

-- Runs queued on the whole platform: admission sheds load by it.
create function app.queue_depth() returns bigint language sql stable as $$
    select coalesce(sum(queued), 0)::bigint from queue_tenants
$$;
select app.control('app.queue_depth()');

-- Weight, cap and pause act on what is already queued: the next claim reads them.
create function app.queue_policy(p_tenant text, p_weight double precision, p_cap integer) returns void
language sql as $$
    insert into queue_tenants (tenant_id, weight, cap) select p_tenant, p_weight, p_cap where app.outside()
    on conflict (tenant_id) do update set weight = p_weight, cap = p_cap
$$;
select app.control('app.queue_policy(text, double precision, integer)');

create function app.queue_pause(p_tenant text, p_paused boolean) returns boolean language plpgsql as $$
begin
    update queue_tenants set paused = p_paused where tenant_id = p_tenant and app.outside();
    return found;
end $$;
select app.control('app.queue_pause(text, boolean)');
