-- The fair queue's verbs. Read the story at the top of 0003_queue.sql first.
--
-- Lock order, everywhere: reviews, by their ids -> queue_tenants row(s), with what hangs on them -> runs row(s) ->
-- workers row -> queue_platform. Whoever locks more than one queue_tenants row holds the advisory lock 7301 before. So two
-- verbs can wait for each other, never in a ring. A claim does not wait for a tenant that somebody else is writing about:
-- it passes over it, and whoever writes wakes a worker after the commit. So a tenant that submits thousands of runs at once
-- holds up nobody else.
--
-- Sessions keep the plans of these verbs, and may have made them while a table was small: the hot ones never read one from
-- end to end (enable_seqscan). Where the planner would rather make a plan for each number of runs, which takes longer than
-- the rest, they keep one (plan_cache_mode).
--
-- Verbs called on behalf of a tenant only touch the tenant of the transaction (app.tenant()). Those of workers,
-- scheduler and operators look across tenants and refuse inside a tenant's transaction (app.outside()).

-- The runs of these ids that may enter the queue, in the order of the ids. From the ids to the rows, whatever the
-- planner knows of the tables: "offset 0" keeps it from reading all that the tenant has queued instead, and an entry that
-- is looked up, rather than joined, all that is queued.
create function app.queue_pushed(p_tenant text, p_run_ids text[])
returns table (run_id text, lane smallint, workflow text, code text, user_key text, "position" bigint)
language sql stable as $$
    select r.run_id, r.lane, r.workflow, r.workflow || '@' || r.version, coalesce(r.user_id, ''), u.position
    from unnest(p_run_ids) with ordinality as u(run_id, position)
    cross join lateral (select * from runs r where r.run_id = u.run_id offset 0) r
    where r.tenant_id = p_tenant and r.state = 'queued'
      and (select e.run_id from queue_entries e where e.run_id = u.run_id) is null
$$;

-- Put runs in state 'queued' into the queue. head: before what is fresh in their lane (resumed runs).
-- Returns how many entered.
create function app.queue_push(p_run_ids text[], p_head boolean, p_now timestamptz) returns integer
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    tenant      queue_tenants%rowtype;
    platform    queue_platform%rowtype;
    passed_s    double precision;
    no_worker_s double precision;
    entered     integer;
begin
    select * into strict tenant from queue_tenants q where q.tenant_id = app.tenant() for update;
    select * into strict platform from queue_platform;
    passed_s := greatest(0, extract(epoch from p_now - tenant.clock_at));
    no_worker_s := platform.no_worker_s + coalesce(greatest(0, extract(epoch from p_now - platform.alive_until)), 0);

    -- A user that was idle re-enters at the present, as a tenant does.
    update queue_flows f set virtual_time = tenant.user_clock
    where f.tenant_id = tenant.tenant_id and f.running = 0 and f.virtual_time < tenant.user_clock
      and f.user_key in (select p.user_key from app.queue_pushed(tenant.tenant_id, p_run_ids) p)
      and not exists (select from queue_flows g
                      where g.tenant_id = f.tenant_id and g.user_key = f.user_key and g.queued > 0);

    with pushed as materialized (
        select p.run_id, p.lane, p.workflow, p.code, p.user_key,
               (extract(epoch from p_now) * 1e6)::bigint + p.position
                   - case when p_head then 1000000000000000000 else 0 end as rank
        from app.queue_pushed(tenant.tenant_id, p_run_ids) p
    ), flows as (
        insert into queue_flows as f (tenant_id, lane, workflow, code, user_key, fresh, queued, head_rank, running,
                                      user_cap, virtual_time)
        select tenant.tenant_id, p.lane, p.workflow, p.code, p.user_key, not p_head, count(*), min(p.rank),
               coalesce(max(g.running), 0), tenant.user_cap, coalesce(max(g.virtual_time), tenant.user_clock)
        from pushed p
        left join lateral (select g.running, g.virtual_time from queue_flows g
                           where g.tenant_id = tenant.tenant_id and g.user_key = p.user_key limit 1) g on true
        group by p.lane, p.workflow, p.code, p.user_key
        on conflict (tenant_id, user_key, lane, code, fresh) do update
            set queued = f.queued + excluded.queued, head_rank = least(f.head_rank, excluded.head_rank)
        returning f.flow_id, f.lane, f.code, f.user_key
    ), entries as (
        insert into queue_entries (run_id, tenant_id, flow_id, rank, capped_s, paused_s, no_worker_s)
        select p.run_id, tenant.tenant_id, f.flow_id, p.rank,
               tenant.capped_s + ((tenant.running >= tenant.cap or tenant.blocked) and not tenant.paused)::integer * passed_s,
               tenant.paused_s + case when tenant.paused then passed_s else 0 end, no_worker_s
        from pushed p
        join flows f on f.lane = p.lane and f.code = p.code and f.user_key = p.user_key
        returning 1
    )
    select count(*) into entered from entries;

    update queue_tenants q
    set queued = q.queued + entered, blocked = false, clock_at = case when q.blocked then p_now else q.clock_at end,
        newcomer = q.newcomer or q.queued + q.running = 0,
        virtual_time = greatest(q.virtual_time, case when q.queued + q.running = 0 then platform.virtual_time end)
    where q.tenant_id = tenant.tenant_id and entered > 0;
    return entered;
end $$;
select app.control('app.queue_push(text[], boolean, timestamptz)');

-- Who may take a slot out of the headroom, when p_free slots are free; its row locked, all null when nobody may.
create function app.quiet_tenant(p_free integer, p_platform queue_platform) returns queue_tenants
language plpgsql as $$
declare tenant queue_tenants%rowtype;
begin
    select * into tenant from queue_tenants q where q.eligible and q.newcomer
    order by q.virtual_time, q.tenant_id limit 1 for update skip locked;
    if found then return tenant; end if;
    -- Few are behind the clock: who is served goes ahead of it, and who came back from being idle is a newcomer.
    select * into tenant from queue_tenants q
    where q.eligible and q.virtual_time <= p_platform.virtual_time
      and (q.running < p_free or q.virtual_time + p_platform.mean_s / q.weight <= p_platform.virtual_time)
    order by q.running, q.virtual_time, q.tenant_id limit 1 for update skip locked;
    return tenant;
end $$;

-- Who may go over its cap; its row locked, all null when nobody may.
create function app.bursting_tenant(p_now timestamptz) returns queue_tenants
language plpgsql as $$
declare tenant queue_tenants%rowtype;
begin
    loop
        select * into tenant from queue_tenants q where q.may_burst
        order by q.virtual_time, q.tenant_id limit 1 for update skip locked;
        if not found or tenant.clock_at = p_now then return tenant; end if;
        -- Its debt has grown since it was written: write what it is, and look again.
        update queue_tenants q set clock_at = p_now where q.tenant_id = tenant.tenant_id returning * into tenant;
        if tenant.may_burst then return tenant; end if;
    end loop;
end $$;

-- The flow from which a tenant's next run is taken; all null when each is at a cap of its user or workflow, or of code
-- that is not among p_codes (null: any will do).
create function app.next_flow(p_tenant text, p_oldest boolean, p_codes text[]) returns queue_flows
language plpgsql as $$
declare flow queue_flows%rowtype;
begin
    if p_oldest then
        select * into flow from queue_flows f
        where f.tenant_id = p_tenant and f.queued > 0 and (f.user_cap is null or f.running < f.user_cap)
          and (p_codes is null or f.code = any (p_codes))
          and not exists (select from queue_workflows w
                          where w.tenant_id = p_tenant and w.workflow = f.workflow and w.running >= w.cap)
        order by f.head_rank, f.lane, f.fresh, f.virtual_time, f.user_key, f.workflow, f.code limit 1;
    else
        select * into flow from queue_flows f
        where f.tenant_id = p_tenant and f.queued > 0 and (f.user_cap is null or f.running < f.user_cap)
          and (p_codes is null or f.code = any (p_codes))
          and not exists (select from queue_workflows w
                          where w.tenant_id = p_tenant and w.workflow = f.workflow and w.running >= w.cap)
        order by f.lane, f.fresh, f.virtual_time, f.user_key, f.workflow, f.head_rank, f.code limit 1;
    end if;
    return flow;
end $$;

-- The one door through which a run starts. Claims up to p_max runs for a worker, fairly.
-- p_headroom: share of all slots (at least one slot when there are two or more) that is kept for tenants that hold
-- few, so that a quiet tenant starts at once while others are backlogged.
-- A last row without a run says what there is to do about what is left. again_at: when to claim again, though nothing
-- changes until then. others: tenants were passed over, and it is time to wake other workers for them, because a slot
-- that this worker gave back may be what they waited for.
create function app.claim(p_worker text, p_max integer, p_headroom double precision, p_now timestamptz)
returns table (run_id text, tenant_id text, user_id text, workflow text, version text, input jsonb,
               attempt integer, thread_id text, batch_id text, budget_microusd bigint, submitted_at timestamptz,
               burst boolean, again_at timestamptz, others boolean)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    tenant   queue_tenants%rowtype;
    flow     queue_flows%rowtype;
    entry    queue_entries%rowtype;
    platform queue_platform%rowtype;
    charge_s double precision;
    space_s  double precision;
    opens_at timestamptz;
    total    integer;
    free     integer;
    reserved integer;
    mine     integer;
    known    text[];
    ready    text[];
    later    timestamptz;
    oldest   boolean;
    from_time double precision := '-infinity';
    passed   text[] := '{}';
    claimed  text[] := '{}';
    bursts   boolean[] := '{}';
begin
    perform app.outside();
    -- All claims wait for the lock, which is kept until the commit: that does not wait for the disk. Nothing that a claimed
    -- run does is durable before its claim is, because both are in one log, in order. A claim that a crash loses was no
    -- claim: its run is queued, and the worker's first write about it is refused.
    perform set_config('synchronous_commit', 'off', true);
    perform pg_advisory_xact_lock(7301);
    select * into strict platform from queue_platform;
    if platform.paced_until > p_now + interval '128 ms' then platform.paced_until := p_now; end if; -- the clock went back
    select least(coalesce(sum(w.slots - w.held) filter (where w.alive), 0), platform.cap - coalesce(sum(w.held), 0)),
           least(coalesce(sum(w.slots) filter (where w.alive), 0), platform.cap)
    into free, total
    from (select *, not draining and heartbeat_at > p_now - interval '1 minute' as alive from workers) w;
    reserved := case when total >= 2 then greatest(1, ceil(total * p_headroom)) else 0 end;
    select least(p_max, w.slots - w.held, free), w.codes, case when w.behind_time is null then '{}' else '{""}' end
    into mine, known, passed from workers w where w.worker_id = p_worker and not w.draining;
    -- Code that this worker has not, and another that could execute a run at once has.
    select array_agg(distinct c.code) into ready
    from workers w cross join unnest(w.codes) as c(code)
    where w.codes <> known and not w.draining and w.held < w.slots and w.heartbeat_at > p_now - interval '1 minute'
      and c.code <> all (known);

    space_s := app.spacing_s(platform.mean_s, total);
    while coalesce(mine, 0) > 0 loop
        opens_at := case when space_s is null and free > reserved then '-infinity'
                         when space_s is null then 'infinity'
                         when free > reserved then platform.paced_until - interval '100 milliseconds'
                         else platform.paced_until end;
        if passed <> '{}' then
            tenant := app.next_served(p_worker, opens_at <= p_now, free > reserved, free, platform, p_now, known, passed);
        elsif opens_at <= p_now then
            -- On from where this claim found the last one, so that only its first look passes over what claims have left
            -- behind in the index since the last vacuum. Who falls behind that meanwhile is served by the next claim.
            select * into tenant from queue_tenants q where q.eligible and q.virtual_time >= from_time
            order by q.virtual_time, q.tenant_id limit 1 for update skip locked;
            if found then
                from_time := tenant.virtual_time;
            elsif from_time > '-infinity' then
                from_time := '-infinity';
                continue;
            elsif free > reserved then
                tenant := app.bursting_tenant(p_now);
            end if;
        else
            tenant := app.quiet_tenant(free, platform);
        end if;
        if tenant.tenant_id is null then
            if passed <> '{}' or opens_at > p_now and opens_at < 'infinity' then
                later := app.look_again(p_worker, opens_at, p_now, known, passed);
            end if;
            exit;
        end if;
        oldest := (tenant.turn + 1) % 10 = 0;
        flow := app.next_flow(tenant.tenant_id, oldest, case when oldest then known || ready else known end);
        if flow.flow_id is null and (known is null or (app.next_flow(tenant.tenant_id, false, null)).flow_id is null) then
            update queue_tenants q set blocked = true, clock_at = p_now where q.tenant_id = tenant.tenant_id;
            continue;
        elsif flow.flow_id is null or flow.code <> all (known) then
            passed := passed || tenant.tenant_id;
            -- Nothing for this worker anywhere: do not look at every tenant.
            exit when app.few_served(known) = '{}';
            continue;
        end if;

        delete from queue_entries e
        where e.ctid = (select h.ctid from queue_entries h where h.flow_id = flow.flow_id
                        order by h.rank, h.run_id limit 1)
        returning * into strict entry;
        select coalesce(max(x.estimate_s), 1.0) into charge_s
        from run_estimates x where x.tenant_id = tenant.tenant_id and x.workflow = flow.workflow;

        update queue_flows f
        set running = f.running + 1, virtual_time = f.virtual_time + charge_s,
            queued = f.queued - (f.flow_id = flow.flow_id)::integer,
            head_rank = case when f.flow_id <> flow.flow_id then f.head_rank
                             else (select min(h.rank) from queue_entries h where h.flow_id = flow.flow_id) end
        where f.tenant_id = tenant.tenant_id and f.user_key = flow.user_key;
        update queue_workflows w set running = w.running + 1
        where w.tenant_id = tenant.tenant_id and w.workflow = flow.workflow;
        update queue_tenants q
        set queued = q.queued - 1, running = q.running + 1, lent = q.lent + (q.running >= q.cap)::integer,
            newcomer = false, turn = q.turn + 1, clock_at = p_now, virtual_time = q.virtual_time + charge_s / q.weight,
            user_clock = greatest(q.user_clock, flow.virtual_time)
        where q.tenant_id = tenant.tenant_id
        returning q.capped_s, q.paused_s into tenant.capped_s, tenant.paused_s;
        insert into slots
        values (entry.run_id, tenant.tenant_id, p_worker, flow.workflow, flow.user_key, p_now, charge_s,
                tenant.running >= tenant.cap, tenant.capped_s - entry.capped_s, tenant.paused_s - entry.paused_s,
                platform.no_worker_s - entry.no_worker_s);

        platform.mean_s := platform.mean_s + 0.1 * (charge_s - platform.mean_s);
        space_s := app.spacing_s(platform.mean_s, total);
        -- Only where all could have been chosen: a newcomer far ahead would put whoever comes after it behind them all.
        if opens_at <= p_now then
            platform.virtual_time := greatest(platform.virtual_time, tenant.virtual_time);
        end if;
        platform.paced_until := app.paced_until(platform.paced_until, space_s, p_now);
        claimed := claimed || entry.run_id;
        bursts := bursts || (tenant.running >= tenant.cap);
        mine := mine - 1;
        free := free - 1;
    end loop;
    if claimed <> '{}' then
        return query
            with moved as (
                update runs r set state = 'running', cause = null, attempt = r.attempt + 1, event_seq = r.event_seq + 1,
                                  started_at = coalesce(r.started_at, p_now)
                where r.run_id = any(claimed)
                returning r.*
            ), told as (
                insert into run_events (tenant_id, run_id, seq, at, kind, data)
                select m.tenant_id, m.run_id, m.event_seq, p_now, 'claimed', jsonb_build_object('claim', m.attempt)
                from moved m
            )
            select m.run_id, m.tenant_id, m.user_id, m.workflow, m.version, m.input, m.attempt, m.thread_id,
                   m.batch_id, m.budget_microusd, m.submitted_at, bursts[array_position(claimed, m.run_id)],
                   null::timestamptz, false
            from moved m order by array_position(claimed, m.run_id);
        update workers w set held = w.held + cardinality(claimed), heartbeat_at = p_now where w.worker_id = p_worker;
        update queue_platform p
        set virtual_time = platform.virtual_time, mean_s = platform.mean_s, paced_until = platform.paced_until;
    end if;
    if passed <> '{}' and (platform.passed_at <= p_now - interval '1 second' or platform.passed_at > p_now) then
        update queue_platform p set passed_at = p_now;
    else
        passed := '{}';
    end if;
    if later is not null or passed <> '{}' then
        run_id := null;
        again_at := later;
        others := passed <> '{}';
        return next;
    end if;
end $$;
select app.control('app.claim(text, integer, double precision, timestamptz)');

-- Give a slot back and pay for the seconds really used. Null when it is not this claim's any more (its worker may even
-- hold the run again, under a later one): the caller must write nothing about the run.
create function app.release(p_run_id text, p_claim integer, p_now timestamptz) returns double precision
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    held     slots%rowtype;
    served_s double precision;
begin
    perform from queue_tenants where tenant_id = app.tenant() for update;
    delete from slots s
    where s.run_id = p_run_id and s.tenant_id = app.tenant()
      and exists (select from runs r where r.run_id = p_run_id and r.attempt = p_claim)
    returning * into held;
    if not found then return null; end if;
    served_s := greatest(0, extract(epoch from p_now - held.claimed_at));
    update queue_flows f set running = f.running - 1, virtual_time = f.virtual_time + (served_s - held.estimate_s)
    where f.tenant_id = held.tenant_id and f.user_key = held.user_key;
    update queue_workflows w set running = w.running - 1
    where w.tenant_id = held.tenant_id and w.workflow = held.workflow;
    update queue_tenants q
    set running = q.running - 1, lent = q.lent - held.burst::integer, blocked = false, clock_at = p_now,
        used_s = q.used_s + served_s, virtual_time = q.virtual_time + (served_s - held.estimate_s) / q.weight
    where q.tenant_id = held.tenant_id;
    insert into run_estimates as e (tenant_id, workflow, estimate_s)
    values (held.tenant_id, held.workflow, greatest(0.001, served_s))
    on conflict (tenant_id, workflow) do update
        set estimate_s = greatest(0.001, 0.8 * e.estimate_s + 0.2 * excluded.estimate_s);
    with run as (
        update runs r set worker_seconds = r.worker_seconds + served_s where r.run_id = p_run_id
        returning r.queued_at, r.workflow, r.version
    )
    insert into slot_uses (tenant_id, released_at, run_id, worker_id, queued_at, claimed_at, burst, capped_s, paused_s,
                           no_worker_s, no_code_s)  -- see 0009
    select held.tenant_id, p_now, held.run_id, held.worker_id, run.queued_at, held.claimed_at, held.burst,
           held.capped_s, held.paused_s,
           greatest(0, least(held.no_worker_s,
                             extract(epoch from held.claimed_at - run.queued_at) - held.capped_s - held.paused_s)),
           app.no_code_s(run.workflow || '@' || run.version, run.queued_at, held.claimed_at, held.no_worker_s)
    from run;
    update workers w set held = w.held - 1 where w.worker_id = held.worker_id;
    return served_s;
end $$;
select app.control('app.release(text, integer, timestamptz)');

-- A wait is over: delete it and, if its run is parked, queue the run at the head of its lane (a held one when it is
-- resumed). A run that has not parked yet goes on instead when it tries to, whatever else it waits for. False when there
-- was no such wait.
create function app.wake(p_run_id text, p_step integer, p_now timestamptz) returns boolean
language plpgsql as $$
begin
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    delete from waits where run_id = p_run_id and step = p_step and tenant_id = app.tenant();
    if not found then return false; end if;
    if app.queue_again(p_run_id, 'waiting', null, p_now) is null then
        update runs set woken = true where tenant_id = app.tenant() and run_id = p_run_id and state = 'running';
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
