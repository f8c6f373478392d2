-- Workers, operators and housekeeping of the fair queue. The story is at the top of 0003_queue.sql, the rules of
-- locking at the top of 0010_queue_verbs.sql.

-- Runs that a worker executes and somebody wants to stop.
create function app.cancelled_here(p_worker text) returns table (run_id text) language sql stable as $$
    select s.run_id from slots s join runs r on r.run_id = s.run_id
    where s.worker_id = p_worker and r.cancel_requested and app.outside()
$$;
select app.control('app.cancelled_here(text)');

-- Note what workers that come, go or drain have changed: the time without any worker, and the times without one that has
-- some code, begin and end. p_gone_at: when those that went were last known to be there. One call after the other, so
-- that whoever comes second sees what the first one did.
create function app.workers_changed(p_gone_at timestamptz, p_now timestamptz) returns void language plpgsql as $$
declare
    taking boolean;
    known  text[];
begin
    perform pg_advisory_xact_lock(7306);
    select count(*) > 0, coalesce(array_agg(distinct c.code) filter (where c.code is not null), '{}') into taking, known
    from workers w left join lateral unnest(coalesce(w.codes, '{*}')) as c(code) on true
    where not w.draining;
    update queue_platform
    set no_worker_s = no_worker_s + greatest(0, extract(epoch from p_now - alive_until)), alive_until = null
    where taking and alive_until is not null;
    update queue_platform set alive_until = p_gone_at where not taking and alive_until is null;

    delete from code_gaps where back_at = 'infinity' and code = any (known) and gone_at >= p_now;
    update code_gaps set back_at = p_now where back_at = 'infinity' and code = any (known);
    insert into code_gaps
    select k.code, '-infinity', p_now from unnest(known) as k(code)
    where not exists (select from code_gaps g where g.code = k.code);
    insert into code_gaps
    select g.code, greatest(p_gone_at, max(g.back_at)), 'infinity' from code_gaps g where g.code <> all (known)
    group by g.code having max(g.back_at) < 'infinity';
end $$;

-- Seconds of a wait in which there were workers, but none with the run's code. p_no_worker_s: those without any worker.
-- Mostly it was there all the time, which one look tells.
create function app.no_code_s(p_code text, p_from timestamptz, p_to timestamptz, p_no_worker_s double precision)
returns double precision language plpgsql stable as $$
begin
    if exists (select from (values (p_code), ('*')) as c(code)
               where (select max(g.back_at) from code_gaps g where g.code = c.code) <= p_from) then
        return 0;
    end if;
    return (
        with gone as (
            select case when count(g.code) = 0 then '{(,)}' else range_agg(tstzrange(g.gone_at, g.back_at)) end as spans
            from (values (p_code), ('*')) as c(code) left join code_gaps g on g.code = c.code
            group by c.code
            union all
            select tstzmultirange(tstzrange(p_from, greatest(p_from, p_to)))
        )
        select greatest(0, coalesce(sum(extract(epoch from upper(s.span) - lower(s.span))), 0) - p_no_worker_s)
        from unnest((select range_intersect_agg(g.spans) from gone g)) as s(span)
    );
end $$;
select app.control('app.no_code_s(text, timestamptz, timestamptz, double precision)');

-- Forget gaps that ended before a moment and that no queued run can have waited in. The last of each code stays: it tells
-- that the code was there since. Up to p_limit; how many.
create function app.code_gaps_purge(p_before timestamptz, p_limit integer) returns integer language plpgsql as $$
declare forgotten integer;
begin
    perform app.outside();
    delete from code_gaps where (code, back_at) in (
        select g.code, g.back_at from code_gaps g
        where g.back_at < p_before
          and exists (select from code_gaps l where l.code = g.code and l.back_at > g.back_at)
          and not exists (select from queue_flows f where f.code = g.code and f.queued > 0)
        limit p_limit);
    get diagnostics forgotten = row_count;
    return forgotten;
end $$;
select app.control('app.code_gaps_purge(timestamptz, integer)');

-- A worker says that it lives, with how many slots and which code (null: whatever there is). Returns how many it holds
-- here: more than it knows of, if the answer to a claim was lost with the connection.
create function app.worker_heartbeat(p_worker text, p_slots integer, p_draining boolean, p_now timestamptz,
                                     p_codes text[]) returns integer language plpgsql as $$
declare holds integer;
begin
    perform app.outside();
    update workers set heartbeat_at = p_now
    where worker_id = p_worker and draining = p_draining and codes is not distinct from p_codes
    returning held into holds;
    if found then return holds; end if;
    insert into workers (worker_id, slots, started_at, heartbeat_at, draining, codes)
    values (p_worker, p_slots, p_now, p_now, p_draining, p_codes)
    on conflict (worker_id) do update set heartbeat_at = p_now, draining = p_draining, codes = p_codes
    returning held into holds;
    perform app.workers_changed(p_now, p_now);
    return holds;
end $$;
select app.control('app.worker_heartbeat(text, integer, boolean, timestamptz, text[])');

-- A worker left cleanly; it must hold nothing.
create function app.worker_leave(p_worker text, p_now timestamptz) returns boolean language plpgsql as $$
declare gone boolean;
begin
    delete from workers where worker_id = p_worker and held = 0 and app.outside();
    gone := found;
    if gone then perform app.workers_changed(p_now, p_now); end if;
    return gone;
end $$;
select app.control('app.worker_leave(text, timestamptz)');

-- Take a run from the worker that holds it, in a transaction of the run's tenant: pay for what was used, and let it
-- go on at the head of its lane (app.queue_again). p_why: the error that broke the execution, or that its worker died;
-- null: nobody is to blame. A run that has more of those than its tenant's policy allows is dead: nothing happens until
-- people retry or cancel it. The state from then on, and how many questions that closed; state null: that claim of it is
-- over.
create function app.take_back(p_run_id text, p_claim integer, p_why jsonb, p_now timestamptz,
                              out state text, out closed integer)
language plpgsql as $$
declare
    times  integer;
    number integer;
    most   integer;
begin
    perform app.lock_reviews(p_run_id);
    if app.release(p_run_id, p_claim, p_now) is null then return; end if;
    closed := 0;
    if p_why is not null then
        update runs r set recoveries = r.recoveries + 1, event_seq = r.event_seq + 1 where r.run_id = p_run_id
        returning r.recoveries, r.event_seq into times, number;
        insert into run_events (tenant_id, run_id, seq, at, kind, data)
        values (app.tenant(), p_run_id, number, p_now, 'recovered', jsonb_build_object('error', p_why));
        select (p.document ->> 'max_recoveries')::integer into strict most
        from tenants t join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
        where t.tenant_id = app.tenant();
        if times > most then
            state := 'dead';
            closed := app.run_finish(p_run_id, state, null, null, p_why || jsonb_build_object('details',
                jsonb_build_object('recoveries', times, 'limit', most)), p_now);
            return;
        end if;
    end if;
    state := app.queue_again(p_run_id, 'running', null, p_now);
end $$;

-- Take back the runs of workers that have not been heard of since p_dead_before, and those that one worker does
-- not know of (p_keep: what it knows).
create function app.recover(p_worker text, p_keep text[], p_dead_before timestamptz, p_now timestamptz)
returns table (tenant_id text, run_id text, worker_id text, state text, closed integer)
language plpgsql as $$
#variable_conflict use_column
declare
    lost_ids  text[];
    lost      record;
    last_seen timestamptz;
begin
    perform app.outside();
    select array_agg(s.run_id) into lost_ids from slots s join workers w on w.worker_id = s.worker_id
    where (w.worker_id = p_worker and s.run_id <> all (p_keep)) or w.heartbeat_at < p_dead_before;
    -- All that they ask, before the first of the queues is locked; and before claims have to wait for us.
    perform from reviews v where v.run_id = any (lost_ids) and v.state = 'open' order by v.review_id for update;
    perform pg_advisory_xact_lock(7301);
    for lost in select s.*, r.attempt as claim, w.heartbeat_at < p_dead_before as died
                from slots s join workers w on w.worker_id = s.worker_id join runs r on r.run_id = s.run_id
                where s.run_id = any (lost_ids)
                  -- Not of a worker that was heard of while we waited for what they ask.
                  and (w.worker_id = p_worker or w.heartbeat_at < p_dead_before)
                order by s.tenant_id, s.run_id
    loop
        perform set_config('app.tenant', lost.tenant_id, true);
        select t.state, t.closed into state, closed
        from app.take_back(lost.run_id, lost.claim, case when lost.died then jsonb_build_object(
            'code', 'worker_died', 'message', format('Its worker %s died.', lost.worker_id)) end, p_now) t;
        if state is not null then
            tenant_id := lost.tenant_id; run_id := lost.run_id; worker_id := lost.worker_id;
            return next;
        end if;
    end loop;
    perform set_config('app.tenant', '', true);
    with dead as (
        delete from workers w where w.held = 0 and w.heartbeat_at < p_dead_before returning w.heartbeat_at
    )
    select max(d.heartbeat_at) into last_seen from dead d;
    if last_seen is not null then perform app.workers_changed(last_seen, p_now); end if;
    -- A clock that goes back leaves what was heard in the future: silence counts from now on.
    update workers w set heartbeat_at = p_now where w.heartbeat_at > p_now + interval '8 seconds';
end $$;
select app.control('app.recover(text, text[], timestamptz, timestamptz)');

-- When the worker that has been silent for the longest was heard of last, of those that hold runs; null: none does.
create function app.longest_silent() returns timestamptz language sql stable as $$
    select min(heartbeat_at) from workers where held > 0 and app.outside()
$$;
select app.control('app.longest_silent()');

-- A worker gives back a run whose execution broke (p_why), or that it could not reach a server for (null): it may not
-- even know the run's tenant well enough to act for it. Whose it is, who held it, its state from then on and how many
-- questions that closed; no row: that claim of it is over.
create function app.give_back(p_run_id text, p_claim integer, p_why jsonb, p_now timestamptz)
returns table (tenant_id text, worker_id text, state text, closed integer)
language plpgsql as $$
#variable_conflict use_column
begin
    perform app.outside();
    select s.tenant_id, s.worker_id into tenant_id, worker_id from slots s where s.run_id = p_run_id;
    if not found then return; end if;
    perform set_config('app.tenant', tenant_id, true);
    select t.state, t.closed into state, closed from app.take_back(p_run_id, p_claim, p_why, p_now) t;
    perform set_config('app.tenant', '', true);
    if state is not null then return next; end if;
end $$;
select app.control('app.give_back(text, integer, jsonb, timestamptz)');

-- How many slots are alive: the estimate of a queued run's start, and cause "no worker", need it. A worker that holds
-- nothing is silent until somebody wakes it, or its idle look (p_idle_since: before that it would have spoken).
create function app.live_slots(p_alive_since timestamptz, p_idle_since timestamptz) returns integer
language sql stable as $$
    select coalesce(sum(slots), 0)::integer from workers
    where not draining and heartbeat_at >= case when held = 0 then p_idle_since else p_alive_since end
$$;
select app.control('app.live_slots(timestamptz, timestamptz)');

-- The code of workers that live, as for live_slots; null: one of them executes whatever there is.
create function app.live_codes(p_alive_since timestamptz, p_idle_since timestamptz) returns text[]
language sql stable as $$
    select case when bool_or(w.codes is null) then null else coalesce(array_agg(distinct c.code), '{}') end
    from workers w left join lateral unnest(w.codes) as c(code) on true
    where not w.draining and w.heartbeat_at >= case when w.held = 0 then p_idle_since else p_alive_since end
$$;
select app.control('app.live_codes(timestamptz, timestamptz)');

-- Runs queued on the whole platform: admission sheds load by it.
create function app.queue_depth() returns bigint language sql stable as $$
    select coalesce(sum(queued), 0)::bigint from queue_tenants where queued > 0
$$;
select app.control('app.queue_depth()');

-- What the policy says about the queue acts on what is already queued: the next claim reads it. What a cap held back
-- until now is no credit: the tenant goes on at the present, as after being idle. So with a pause.
create function app.queue_policy(p_tenant text, p_policy jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
    by_user integer := (p_policy ->> 'user_cap')::integer;
    present double precision := (select p.virtual_time from queue_platform p);
begin
    perform app.outside();
    insert into queue_tenants as q (tenant_id, weight, cap, burst_slots, burst_credit_s, user_cap, clock_at, virtual_time)
    values (p_tenant, (p_policy ->> 'weight')::double precision, (p_policy ->> 'concurrency_cap')::integer,
            (p_policy ->> 'burst_slots')::integer, (p_policy ->> 'burst_credit_s')::double precision, by_user, p_now,
            present)
    on conflict (tenant_id) do update
        set weight = excluded.weight, cap = excluded.cap, burst_slots = excluded.burst_slots,
            burst_credit_s = excluded.burst_credit_s, user_cap = by_user, clock_at = p_now, blocked = false,
            virtual_time = greatest(q.virtual_time, present);
    update queue_flows set user_cap = by_user where tenant_id = p_tenant;
    delete from queue_workflows where tenant_id = p_tenant;
    insert into queue_workflows (tenant_id, workflow, cap, running)
    select p_tenant, c.key, c.value::integer,
           (select count(*) from slots s where s.tenant_id = p_tenant and s.workflow = c.key)
    from jsonb_each_text(p_policy -> 'workflow_caps') c;
end $$;
select app.control('app.queue_policy(text, jsonb, timestamptz)');

-- Paused: nothing of the tenant is claimed. Draining: nothing more is admitted, what is queued goes on. Null leaves
-- it as it is. False: no such tenant.
create function app.queue_steer(p_tenant text, p_paused boolean, p_draining boolean, p_now timestamptz)
returns boolean language plpgsql as $$
begin
    update queue_tenants
    set paused = coalesce(p_paused, paused), draining = coalesce(p_draining, draining), clock_at = p_now,
        virtual_time = greatest(virtual_time, (select p.virtual_time from queue_platform p))
    where tenant_id = p_tenant and app.outside();
    return found;
end $$;
select app.control('app.queue_steer(text, boolean, boolean, timestamptz)');

-- The most slots that may be held on the whole platform; null: as many as workers have. Returns what it was.
create function app.queue_platform_cap(p_cap integer) returns integer language plpgsql as $$
declare was integer;
begin
    perform app.outside();
    perform pg_advisory_xact_lock(7301);
    select cap into was from queue_platform for update;
    update queue_platform set cap = p_cap;
    return was;
end $$;
select app.control('app.queue_platform_cap(integer)');

-- Flows of users who are as good as new: forgetting them changes nothing. Up to p_limit; how many. It never waits: what
-- somebody else writes about is left for the next time.
create function app.queue_flows_purge(p_limit integer) returns integer language plpgsql as $$
declare forgotten integer;
begin
    perform app.outside();
    with idle as (
        select f.flow_id, q.tenant_id from queue_flows f join queue_tenants q on q.tenant_id = f.tenant_id
        where f.queued = 0 and f.running = 0 and f.virtual_time <= q.user_clock
        limit p_limit
    ), locked as (
        select q.tenant_id from queue_tenants q
        where q.tenant_id in (select i.tenant_id from idle i)
        for update skip locked
    )
    delete from queue_flows f using idle i, locked l
    where f.flow_id = i.flow_id and i.tenant_id = l.tenant_id and f.queued = 0 and f.running = 0;
    get diagnostics forgotten = row_count;
    return forgotten;
end $$;
select app.control('app.queue_flows_purge(integer)');

-- Where what the queue decides by differs from what is there: nothing, ever. For tests, chaos runs and doctors.
create function app.queue_faults() returns table (place text, fault text) language sql stable as $$
    select q.tenant_id, 'tenant: ' || q.queued || ' queued, ' || q.running || ' running, ' || q.lent || ' lent'
    from queue_tenants q
    where app.outside()
      and (q.queued <> (select count(*) from queue_entries e where e.tenant_id = q.tenant_id)
        or q.running <> (select count(*) from slots s where s.tenant_id = q.tenant_id)
        or q.lent <> (select count(*) from slots s where s.tenant_id = q.tenant_id and s.burst)
        or q.queued <> (select count(*) from runs r where r.tenant_id = q.tenant_id and r.state = 'queued')
        or q.running <> (select count(*) from runs r where r.tenant_id = q.tenant_id and r.state = 'running'))
    union all
    select f.tenant_id, 'flow ' || f.flow_id || ': ' || f.queued || ' queued, ' || f.running || ' running'
    from queue_flows f
    where f.queued <> (select count(*) from queue_entries e where e.flow_id = f.flow_id)
       or f.head_rank is distinct from (select min(e.rank) from queue_entries e where e.flow_id = f.flow_id)
       or f.running <> (select count(*) from slots s where s.tenant_id = f.tenant_id and s.user_key = f.user_key)
    union all
    select w.tenant_id, 'workflow ' || w.workflow || ': ' || w.running || ' running' from queue_workflows w
    where w.running <> (select count(*) from slots s where s.tenant_id = w.tenant_id and s.workflow = w.workflow)
    union all
    select w.worker_id, 'worker: holds ' || w.held from workers w
    where w.held <> (select count(*) from slots s where s.worker_id = w.worker_id)
$$;
select app.control('app.queue_faults()');
