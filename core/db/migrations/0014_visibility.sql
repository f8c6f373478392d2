-- Why runs wait, how long they probably will, and how fast queues drain: what admission, run pages and operators read.
--
-- Every wait has a cause. In the queue the clocks of 0003_queue.sql divide it: at the cap, paused, no worker, none with
-- the code; the rest was the share of others. Parked, it is the cause that the run named. So all of a run's waiting adds
-- up, to the second.
--
-- A start is estimated from what stands before the run in the order in which claims choose, and from the slots its
-- tenant may expect: its max-min share, by weight, among all tenants that want slots. core/queue/estimate.py has the
-- formula; this file counts.

-- The seconds without any worker so far.
create function app.no_worker_clock(p_now timestamptz) returns double precision language sql stable as $$
    select p.no_worker_s + coalesce(greatest(0, extract(epoch from p_now - p.alive_until)), 0) from queue_platform p
$$;
select app.control('app.no_worker_clock(timestamptz)');

-- Every time one run was in the queue and in a slot, oldest first; between two of them it was parked. The seconds are
-- those of the time from queued_at to claimed_at (to p_now, while it is queued); what they leave of it was the share
-- of others.
create function app.passage_rows(p_run_id text, p_now timestamptz)
returns table (queued_at timestamptz, claimed_at timestamptz, released_at timestamptz, burst boolean,
               capped_s double precision, paused_s double precision, no_worker_s double precision,
               no_code_s double precision)
language sql stable as $$
    with passages as (
        select u.queued_at, u.claimed_at, u.released_at, u.burst, u.capped_s, u.paused_s, u.no_worker_s, u.no_code_s
        from slot_uses u where u.run_id = p_run_id
        union all
        select r.queued_at, s.claimed_at, null, s.burst, s.capped_s, s.paused_s, s.no_worker_s,
               app.no_code_s(r.workflow || '@' || r.version, r.queued_at, s.claimed_at, s.no_worker_s)
        from slots s join runs r on r.run_id = s.run_id where s.run_id = p_run_id
        union all
        select r.queued_at, null, null, null,
               q.capped_s - e.capped_s + ((q.running >= q.cap or q.blocked) and not q.paused)::integer * late.passed_s,
               q.paused_s - e.paused_s + case when q.paused then late.passed_s else 0 end,
               app.no_worker_clock(p_now) - e.no_worker_s,
               app.no_code_s(r.workflow || '@' || r.version, r.queued_at, p_now,
                             app.no_worker_clock(p_now) - e.no_worker_s)
        from queue_entries e
        join runs r on r.run_id = e.run_id
        join queue_tenants q on q.tenant_id = e.tenant_id
        cross join lateral (select greatest(0, extract(epoch from p_now - q.clock_at)) as passed_s) late
        where e.run_id = p_run_id
    )
    select p.queued_at, p.claimed_at, p.released_at, p.burst, p.capped_s, p.paused_s, w.no_worker_s,
           greatest(0, least(p.no_code_s, left_s - w.no_worker_s))
    from passages p
    cross join lateral (
        select extract(epoch from coalesce(p.claimed_at, p_now) - p.queued_at) - p.capped_s - p.paused_s as left_s
    ) l
    cross join lateral (select greatest(0, least(p.no_worker_s, l.left_s)) as no_worker_s) w
    order by 1
$$;

create function app.op_passage_rows(p_run_id text, p_now timestamptz)
returns table (queued_at timestamptz, claimed_at timestamptz, released_at timestamptz, burst boolean,
               capped_s double precision, paused_s double precision, no_worker_s double precision,
               no_code_s double precision)
language sql stable as $$ select * from app.passage_rows(p_run_id, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_passage_rows(text, timestamptz)');

-- Seconds that the runs which got a slot in a window had waited for it, by cause, per tenant.
create function app.wait_causes(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, starts integer, bursts integer, capped_s double precision, paused_s double precision,
               no_worker_s double precision, no_code_s double precision, share_s double precision)
language sql stable as $$
    with starts as (
        select u.tenant_id, u.burst, u.capped_s, u.paused_s, u.no_worker_s, u.no_code_s,
               extract(epoch from u.claimed_at - u.queued_at) as waited_s
        from tenants t
        cross join lateral (select * from slot_uses s where s.tenant_id = t.tenant_id and s.released_at > p_since
                              and s.worker_id is not null) u
        where u.claimed_at > p_since and u.claimed_at <= p_now
        union all
        select s.tenant_id, s.burst, s.capped_s, s.paused_s, s.no_worker_s,
               app.no_code_s(r.workflow || '@' || r.version, r.queued_at, s.claimed_at, s.no_worker_s),
               extract(epoch from s.claimed_at - r.queued_at)
        from slots s join runs r on r.run_id = s.run_id
        where s.claimed_at > p_since and s.claimed_at <= p_now
    )
    select s.tenant_id, count(*)::integer, (count(*) filter (where s.burst))::integer, sum(s.capped_s), sum(s.paused_s),
           sum(w.no_worker_s), sum(c.no_code_s), sum(greatest(0, l.left_s - w.no_worker_s - c.no_code_s))
    from starts s
    cross join lateral (select (s.waited_s - s.capped_s - s.paused_s)::double precision as left_s) l
    cross join lateral (select greatest(0, least(s.no_worker_s, l.left_s)) as no_worker_s) w
    cross join lateral (select greatest(0, least(s.no_code_s, l.left_s - w.no_worker_s)) as no_code_s) c
    group by s.tenant_id
$$;

create function app.op_wait_causes(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, starts integer, bursts integer, capped_s double precision, paused_s double precision,
               no_worker_s double precision, no_code_s double precision, share_s double precision)
language sql stable as $$ select * from app.wait_causes(p_since, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_wait_causes(timestamptz, timestamptz)');

-- How long the runs that got a slot in each bucket of time had waited for it, p95, of the p_top tenants that waited most
-- in all; buckets in which none of a tenant's runs started have no row of it.
create function app.wait_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, wait_p95_s double precision)
language sql stable as $$
    with starts as materialized (
        select q.tenant_id, floor(extract(epoch from q.claimed_at - p_since) / p_bucket_s)::integer as n,
               greatest(0, extract(epoch from q.claimed_at - q.queued_at))::double precision as waited_s
        from app.queue_passages(p_since) q where q.claimed_at > p_since and q.claimed_at < p_now
    ), top as (
        select s.tenant_id from starts s group by s.tenant_id order by sum(s.waited_s) desc, s.tenant_id limit p_top
    )
    select s.tenant_id, p_since + make_interval(secs => s.n * p_bucket_s),
           percentile_cont(0.95) within group (order by s.waited_s)
    from starts s join top on top.tenant_id = s.tenant_id group by s.tenant_id, s.n
$$;

create function app.op_wait_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, wait_p95_s double precision)
language sql stable as $$
    select * from app.wait_over_time(p_since, p_now, p_bucket_s, p_top) where app.tenant() = 'platform'
$$;
select app.control('app.op_wait_over_time(timestamptz, timestamptz, integer, integer)');

-- The cap of the whole platform; null: none.
create function app.op_platform() returns table (cap integer) language sql stable as $$
    select p.cap from queue_platform p where app.tenant() = 'platform'
$$;
select app.control('app.op_platform()');

-- Runs that left the queue for a slot since a moment: of the transaction's tenant, and of the whole platform.
create function app.tenant_starts(p_since timestamptz) returns bigint language sql stable as $$
    select (select count(*) from slot_uses u
            where u.tenant_id = app.tenant() and u.released_at > p_since and u.claimed_at > p_since
              and u.worker_id is not null)
         + (select count(*) from slots s where s.tenant_id = app.tenant() and s.claimed_at > p_since)
$$;

create function app.platform_starts(p_since timestamptz) returns bigint language sql stable as $$
    select (select coalesce(sum(u.starts), 0) from queue_tenants q
            cross join lateral (select count(*) as starts from slot_uses u
                                where u.tenant_id = q.tenant_id and u.released_at > p_since and u.claimed_at > p_since
                                  and u.worker_id is not null) u
            where q.clock_at > p_since)  -- a release moves it: others had none
         + (select count(*) from slots s where s.claimed_at > p_since)
$$;
select app.control('app.platform_starts(timestamptz)');

-- How many slots a tenant of weight 1 gets when p_slots are divided: nobody more than they want, the rest by weight.
-- Null: there is enough for all. (Max-min: from the most modest upwards, the first who does not get all they want.)
create function app.fair_level(p_slots double precision) returns double precision language sql stable as $$
    with claimants as (
        select q.tenant_id, q.weight,
               (case when q.paused then q.running else least(q.cap, q.queued + q.running) end)::double precision as wants
        from queue_tenants q where q.queued > 0 or q.running > 0
    ), ordered as (
        select c.wants, c.weight,
               sum(c.wants) over modest - c.wants as below,
               sum(c.weight) over () - sum(c.weight) over modest + c.weight as heavy
        from claimants c
        window modest as (order by c.wants / c.weight, c.tenant_id)
    )
    select max(greatest(0, p_slots - o.below) / o.heavy) from ordered o
    where o.below + o.wants / o.weight * o.heavy > p_slots
$$;
select app.control('app.fair_level(double precision)');

-- Slots that tenants may share out: of workers that live, within the platform's cap, without the headroom.
create function app.shared_slots(p_alive_since timestamptz, p_idle_since timestamptz, p_headroom double precision)
returns integer language sql stable as $$
    select s.total - case when s.total >= 2 then greatest(1, ceil(s.total * p_headroom))::integer else 0 end
    from (select least(app.live_slots(p_alive_since, p_idle_since), (select p.cap from queue_platform p)) as total) s
$$;
select app.control('app.shared_slots(timestamptz, timestamptz, double precision)');

-- Where a queued run stands in its tenant; no row when it is not queued. Runs before it in the order of claims, in
-- three circles that may each hold it up: the tenant, its own user, its own workflow (those that have a cap). Seconds
-- are learned means; "left" is what running ones still need, at least a tenth of their mean.
--   older: queued before it, whatever their lane. passed: those of them that stand behind it in the order; every tenth
--   claim takes one of them first.
create function app.queue_place(p_run_id text, p_now timestamptz)
returns table (code text, paused boolean, weight double precision, cap integer, burst_slots integer, user_cap integer,
               workflow_cap integer, estimate_s double precision, older integer, passed integer,
               ahead integer, ahead_s double precision, running integer, left_s double precision,
               user_ahead integer, user_ahead_s double precision, user_running integer, user_left_s double precision,
               workflow_ahead integer, workflow_ahead_s double precision, workflow_running integer,
               workflow_left_s double precision)
language sql stable as $$
    with own as (
        select e.tenant_id, e.run_id, e.rank, f.flow_id, f.lane, f.fresh, f.user_key, f.workflow, f.code, f.virtual_time
        from queue_entries e join queue_flows f on f.flow_id = e.flow_id
        where e.run_id = p_run_id
    ), flows as (
        select f.*, coalesce(x.estimate_s, 1.0) as cost_s,
               (f.lane, f.fresh) < (o.lane, o.fresh) as earlier, (f.lane, f.fresh) = (o.lane, o.fresh) as level,
               (select count(*) from queue_entries e
                where e.flow_id = f.flow_id and (e.rank, e.run_id) < (o.rank, o.run_id)) as older
        from own o
        join queue_flows f on f.tenant_id = o.tenant_id and f.queued > 0
        left join run_estimates x on x.tenant_id = f.tenant_id and x.workflow = f.workflow
    ), turns as (
        -- A user's virtual time when the flow's turn comes: workflows of one user and lane go by name.
        select f.*, f.virtual_time + coalesce(sum(f.queued * f.cost_s) over (
                   partition by f.user_key, f.lane, f.fresh order by f.workflow, f.head_rank
                   rows between unbounded preceding and 1 preceding), 0) as begins
        from flows f
    ), mine as (
        select t.begins + t.older * t.cost_s as turn, t.cost_s from turns t join own o on o.flow_id = t.flow_id
    ), before as (
        select t.*, case
                   when t.earlier then t.queued
                   when not t.level then 0
                   when t.flow_id = o.flow_id then t.older
                   when t.user_key = o.user_key then
                       case when t.workflow < o.workflow then t.queued when t.workflow = o.workflow then t.older else 0 end
                   when t.user_key < o.user_key and m.turn >= t.begins
                       then least(t.queued, floor((m.turn - t.begins) / t.cost_s) + 1)
                   else least(t.queued, greatest(0, ceil((m.turn - t.begins) / t.cost_s)))
               end as first
        from turns t cross join own o cross join mine m
    ), held as (
        select s.user_key, s.workflow,
               greatest(s.estimate_s - extract(epoch from p_now - s.claimed_at), s.estimate_s / 10) as left_s
        from own o join slots s on s.tenant_id = o.tenant_id
    )
    select o.code, q.paused, q.weight, q.cap, q.burst_slots, q.user_cap,
           (select w.cap from queue_workflows w where w.tenant_id = q.tenant_id and w.workflow = o.workflow),
           m.cost_s, b.older::integer, b.passed::integer,
           b.ahead::integer, b.ahead_s, h.running::integer, h.left_s,
           b.user_ahead::integer, b.user_ahead_s, h.user_running::integer, h.user_left_s,
           b.workflow_ahead::integer, b.workflow_ahead_s, h.workflow_running::integer, h.workflow_left_s
    from own o
    cross join mine m
    join queue_tenants q on q.tenant_id = o.tenant_id
    cross join lateral (
        select sum(f.older) as older, sum(greatest(0, f.older - f.first)) as passed,
               sum(f.first) as ahead, sum(f.first * f.cost_s) as ahead_s,
               coalesce(sum(f.first) filter (where f.user_key = o.user_key), 0) as user_ahead,
               coalesce(sum(f.first * f.cost_s) filter (where f.user_key = o.user_key), 0) as user_ahead_s,
               coalesce(sum(f.first) filter (where f.workflow = o.workflow), 0) as workflow_ahead,
               coalesce(sum(f.first * f.cost_s) filter (where f.workflow = o.workflow), 0) as workflow_ahead_s
        from before f
    ) b
    cross join lateral (
        select count(*) as running, coalesce(sum(s.left_s), 0) as left_s,
               count(*) filter (where s.user_key = o.user_key) as user_running,
               coalesce(sum(s.left_s) filter (where s.user_key = o.user_key), 0) as user_left_s,
               count(*) filter (where s.workflow = o.workflow) as workflow_running,
               coalesce(sum(s.left_s) filter (where s.workflow = o.workflow), 0) as workflow_left_s
        from held s
    ) h
$$;

create function app.op_queue_place(p_run_id text, p_now timestamptz)
returns table (code text, paused boolean, weight double precision, cap integer, burst_slots integer, user_cap integer,
               workflow_cap integer, estimate_s double precision, older integer, passed integer,
               ahead integer, ahead_s double precision, running integer, left_s double precision,
               user_ahead integer, user_ahead_s double precision, user_running integer, user_left_s double precision,
               workflow_ahead integer, workflow_ahead_s double precision, workflow_running integer,
               workflow_left_s double precision)
language sql stable as $$ select * from app.queue_place(p_run_id, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_queue_place(text, timestamptz)');
