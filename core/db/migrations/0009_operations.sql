-- What operations look at: how long runs waited and ran, who got how many worker-seconds, what stands now.
--
-- Every question is asked twice and answered by one function. app.NAME runs with the rights of its caller, so
-- inside a tenant's transaction row-level security narrows it to that tenant. app.op_NAME is the same over all
-- tenants: a control function, empty unless the transaction is one of the tenant 'platform', where only
-- operators are. None of them returns content: counts, sums, percentiles, names of workflows and steps, times,
-- money and error codes; never an input, output, evidence, message or title.
--
-- Times are parameters. "Since" is exclusive, "now" inclusive. A wait is the time between entering the queue and
-- getting a slot, each time a run does so; a duration is the time from submission to the end, waits included.

-- One row per slot that was given back, by app.release: the record behind "fair in worker-seconds". A run that left the
-- queue without a slot (app.queue_left) leaves a row without a worker: only what it waited for counts.
create table slot_uses (
    tenant_id   text not null,
    released_at timestamptz not null,
    use_id      bigint generated always as identity,
    run_id      text not null,
    worker_id   text,
    queued_at   timestamptz not null,
    claimed_at  timestamptz not null,
    burst       boolean not null,             -- over the tenant's cap
    -- Seconds of the wait from queued_at to claimed_at by cause; the rest of it was the share of others.
    capped_s    double precision not null,
    paused_s    double precision not null,
    no_worker_s double precision not null,
    no_code_s   double precision not null,
    primary key (tenant_id, released_at, use_id)
);
create index slot_uses_run on slot_uses (run_id);
select app.fence('slot_uses', 'select');

-- Forget uses of runs that have ended, from before what plots show. Returns how many.
create function app.slot_uses_purge(p_before timestamptz, p_limit integer) returns integer language sql as $$
    with old as (
        select u.tenant_id, u.released_at, u.use_id from tenants t
        cross join lateral (select * from slot_uses s where s.tenant_id = t.tenant_id and s.released_at < p_before
                              and exists (select from runs r where r.run_id = s.run_id and r.finished_at is not null)
                            order by s.released_at limit p_limit) u
        where app.outside() limit p_limit
    ), gone as (
        delete from slot_uses s using old
        where (s.tenant_id, s.released_at, s.use_id) = (old.tenant_id, old.released_at, old.use_id) returning 1
    )
    select count(*)::integer from gone
$$;
select app.control('app.slot_uses_purge(timestamptz, integer)');

-- Everything that was in the queue or in a slot since p_since: one row per entry into the queue. claimed_at is
-- null while it is queued, released_at while it holds a slot.
create function app.queue_passages(p_since timestamptz)
returns table (tenant_id text, queued_at timestamptz, claimed_at timestamptz, released_at timestamptz)
language sql stable as $$
    select u.tenant_id, u.queued_at, u.claimed_at, u.released_at
    from tenants t cross join lateral
        (select * from slot_uses s where s.tenant_id = t.tenant_id and s.released_at > p_since
           and s.worker_id is not null) u
    union all
    select s.tenant_id, r.queued_at, s.claimed_at, null
    from slots s join runs r on r.run_id = s.run_id
    union all
    select e.tenant_id, date_trunc('milliseconds', to_timestamp(
               (case when e.rank < 0 then e.rank + 1000000000000000000 else e.rank end) / 1e6)), null, null
    from queue_entries e  -- its rank says when it was queued, so that a million of them need no look at their runs
$$;

-- Now, per tenant: queue (by lane, too) and its limit, slots, burst, waits by cause, quota, budget of the month, reviews.
create function app.pulse(p_now timestamptz)
returns table (tenant_id text, name text, tier text, queued integer, queue_depth integer, running integer, cap integer,
               weight double precision, paused boolean, draining boolean, blocked boolean, full_workflows text[],
               burst_slots integer, burst_credit_s double precision, debt_s double precision, lanes jsonb, codes jsonb,
               oldest_queued_at timestamptz, waiting jsonb, runs_today integer, daily_runs integer,
               month_limit_microusd bigint, month_reserved_microusd bigint, month_spent_microusd bigint,
               reviews_open integer, reviews_overdue integer, review_next_due timestamptz)
language sql stable as $$
    select t.tenant_id, t.name, p.document ->> 'tier', coalesce(q.queued, 0), (p.document ->> 'queue_depth')::integer,
           coalesce(q.running, 0), coalesce(q.cap, 0), coalesce(q.weight, 1), coalesce(q.paused, false),
           coalesce(q.draining, false), coalesce(q.blocked, false),
           array(select w.workflow from queue_workflows w where w.tenant_id = t.tenant_id and w.running >= w.cap),
           coalesce(q.burst_slots, 0), coalesce(q.burst_credit_s, 0),
           coalesce(greatest(0, q.debt_s + least(q.running - q.cap, q.lent)
                                           * greatest(0, extract(epoch from p_now - q.clock_at))), 0),
           coalesce(l.lanes, '{}'), coalesce(k.codes, '{}'), oldest.queued_at, coalesce(w.waiting, '{}'),
           coalesce(d.runs, 0), (p.document ->> 'daily_runs')::integer, (p.document ->> 'budget_month_microusd')::bigint,
           coalesce(b.reserved_microusd, 0), coalesce(b.spent_microusd, 0), v.open, v.overdue, v.next_due
    from tenants t
    join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    cross join lateral (select coalesce(p.document ->> 'timezone', 'UTC') as name) zone
    left join queue_tenants q on q.tenant_id = t.tenant_id
    left join run_days d on d.tenant_id = t.tenant_id and d.day = (p_now at time zone zone.name)::date
    left join budget_accounts b on b.tenant_id = t.tenant_id
        and b.account = 'month:' || to_char(p_now at time zone zone.name, 'YYYY-MM')
    left join lateral (
        select min(r.queued_at) as queued_at
        from queue_flows f
        join queue_entries e on e.flow_id = f.flow_id and e.rank = f.head_rank
        join runs r on r.run_id = e.run_id
        where f.tenant_id = t.tenant_id and f.queued > 0
    ) oldest on true
    left join lateral (
        select jsonb_object_agg(c.lane, c.queued) as lanes
        from (select f.lane, sum(f.queued) as queued from queue_flows f
              where f.tenant_id = t.tenant_id and f.queued > 0 group by f.lane) c
    ) l on true
    left join lateral (
        select jsonb_object_agg(c.code, c.queued) as codes
        from (select f.code, sum(f.queued) as queued from queue_flows f
              where f.tenant_id = t.tenant_id and f.queued > 0 group by f.code) c
    ) k on true
    left join lateral (
        select jsonb_object_agg(c.cause, c.count) as waiting
        from (select w.cause, count(*) as count from waits w
              where w.tenant_id = t.tenant_id
                and w.run_id not in (select r.run_id from runs r where r.tenant_id = t.tenant_id and r.held)
              group by w.cause
              union all
              select 'paused', count(*) from runs r
              where r.tenant_id = t.tenant_id and r.held and r.state = 'waiting' having count(*) > 0) c
    ) w on true
    cross join lateral (
        select count(*)::integer as open, (count(*) filter (where r.due_at < p_now))::integer as overdue,
               min(r.due_at) as next_due
        from reviews r where r.tenant_id = t.tenant_id and r.state = 'open'
    ) v
    where t.tenant_id <> 'platform'
    order by t.tenant_id
$$;

-- Service in a window, per tenant with demand (something queued or running at any moment of it): worker-seconds
-- used, seconds during which at least one run was queued, and how long runs had to wait for a slot.
create function app.service(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, worker_s double precision, backlog_s double precision, starts integer,
               wait_p50_s double precision, wait_p95_s double precision, wait_p99_s double precision)
language sql stable as $$
    with passages as (
        select q.*, case when q.claimed_at > p_since and q.claimed_at <= p_now
                         then greatest(0, extract(epoch from q.claimed_at - q.queued_at))::double precision end as wait_s
        from app.queue_passages(p_since) q where q.queued_at <= p_now
    ), queues as (
        select p.tenant_id, range_agg(tstzrange(greatest(p.queued_at, p_since), least(coalesce(p.claimed_at, p_now), p_now)))
               as backlog
        from passages p where p.queued_at < coalesce(p.claimed_at, p_now) and coalesce(p.claimed_at, p_now) > p_since
        group by p.tenant_id
    ), backlogs as (
        select q.tenant_id, sum(extract(epoch from upper(span) - lower(span)))::double precision as seconds
        from queues q cross join lateral unnest(q.backlog) span
        group by q.tenant_id
    )
    select p.tenant_id,
           coalesce(sum(extract(epoch from least(coalesce(p.released_at, p_now), p_now) - greatest(p.claimed_at, p_since)))
                    filter (where p.claimed_at < p_now), 0)::double precision,
           coalesce(max(b.seconds), 0),
           count(p.wait_s)::integer,
           percentile_cont(0.5) within group (order by p.wait_s),
           percentile_cont(0.95) within group (order by p.wait_s),
           percentile_cont(0.99) within group (order by p.wait_s)
    from passages p left join backlogs b on b.tenant_id = p.tenant_id
    group by p.tenant_id
$$;

-- What ended in a window, per tenant; the dead count as failed. Within the SLA: ended before submission + the policy's
-- run_sla_s; runs that are still open past that count as late in every window, or a starving tenant would look healthy.
create function app.endings(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, succeeded integer, failed integer, cancelled integer, in_time integer, late integer,
               duration_p50_s double precision, duration_p95_s double precision, duration_p99_s double precision)
language sql stable as $$
    select t.tenant_id, ended.succeeded, ended.failed, ended.cancelled, ended.in_time,
           ended.late + overdue.count, ended.p50, ended.p95, ended.p99
    from tenants t
    join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    cross join lateral (select make_interval(secs => coalesce((p.document ->> 'run_sla_s')::integer, 86400)) as span) sla
    cross join lateral (
        select (count(*) filter (where r.state = 'succeeded'))::integer as succeeded,
               (count(*) filter (where r.state in ('failed', 'dead')))::integer as failed,
               (count(*) filter (where r.state = 'cancelled'))::integer as cancelled,
               (count(*) filter (where r.state <> 'cancelled' and r.finished_at - r.submitted_at <= sla.span))::integer
                   as in_time,
               (count(*) filter (where r.state <> 'cancelled' and r.finished_at - r.submitted_at > sla.span))::integer
                   as late,
               percentile_cont(0.5) within group (order by extract(epoch from r.finished_at - r.submitted_at)) as p50,
               percentile_cont(0.95) within group (order by extract(epoch from r.finished_at - r.submitted_at)) as p95,
               percentile_cont(0.99) within group (order by extract(epoch from r.finished_at - r.submitted_at)) as p99
        from runs r
        where r.tenant_id = t.tenant_id and r.finished_at > p_since and r.finished_at <= p_now
    ) ended
    cross join lateral (
        select count(*)::integer as count from runs r
        where r.tenant_id = t.tenant_id and r.state in ('queued', 'running', 'waiting')
          and r.submitted_at < p_now - sla.span
    ) overdue
    where t.tenant_id <> 'platform'
$$;

-- Failures in a window by workflow and error code.
create function app.failures(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, workflow text, code text, count integer)
language sql stable as $$
    select t.tenant_id, r.workflow, coalesce(r.error ->> 'code', 'unknown'), count(*)::integer
    from tenants t
    join runs r on r.tenant_id = t.tenant_id and r.finished_at > p_since and r.finished_at <= p_now
    where r.state in ('failed', 'dead')
    group by 1, 2, 3
$$;

-- Worker-seconds per bucket of time of the p_top tenants with the most, and of all others together (tenant_id null);
-- buckets without service have no row.
create function app.service_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, worker_s double precision)
language sql stable as $$
    with uses as materialized (
        select q.tenant_id, greatest(q.claimed_at, p_since) as began, least(coalesce(q.released_at, p_now), p_now) as ended
        from app.queue_passages(p_since) q where q.claimed_at < p_now
    ), top as (
        select u.tenant_id from uses u group by u.tenant_id order by sum(u.ended - u.began) desc, u.tenant_id limit p_top
    )
    select top.tenant_id, p_since + make_interval(secs => n * p_bucket_s),
           sum(extract(epoch from least(u.ended, p_since + make_interval(secs => (n + 1) * p_bucket_s))
                                  - greatest(u.began, p_since + make_interval(secs => n * p_bucket_s))))::double precision
    from uses u
    left join top on top.tenant_id = u.tenant_id
    cross join lateral generate_series(
        floor(extract(epoch from u.began - p_since) / p_bucket_s)::integer,
        (ceil(extract(epoch from u.ended - p_since) / p_bucket_s) - 1)::integer) n
    group by 1, 2
$$;

-- Runs in the queue at the end of each bucket of time, of the p_top tenants that had the most for the longest, and of
-- all others together (tenant_id null). Entries cancelled while they were queued are not in the past of this plot.
create function app.depth_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, queued integer)
language sql stable as $$
    with span as (
        select ceil(extract(epoch from p_now - p_since) / p_bucket_s)::integer as last
    ), passages as (
        select * from app.queue_passages(p_since) q
        where q.queued_at <= p_now and (q.claimed_at is null or q.claimed_at > p_since)
    ), changes as materialized (
        select c.tenant_id, c.n, sum(c.change) as change
        from (
            select p.tenant_id, greatest(0, ceil(extract(epoch from p.queued_at - p_since) / p_bucket_s)) as n, 1 as change
            from passages p
            union all
            select p.tenant_id, ceil(extract(epoch from p.claimed_at - p_since) / p_bucket_s), -1
            from passages p where p.claimed_at <= p_now
        ) c group by 1, 2
    ), top as (
        select c.tenant_id from changes c cross join span
        group by c.tenant_id order by sum(c.change * (span.last + 1 - c.n)) desc, c.tenant_id limit p_top
    ), named as (
        select coalesce(top.tenant_id, '') as name, c.n, sum(c.change) as change
        from changes c left join top on top.tenant_id = c.tenant_id group by 1, 2
    ), grid as (
        select c.name, n from (select distinct name from named) c
        cross join span cross join generate_series(0, span.last) n
    )
    select nullif(g.name, ''), p_since + make_interval(secs => g.n * p_bucket_s),
           (sum(coalesce(c.change, 0)) over (partition by g.name order by g.n))::integer
    from grid g left join named c on c.name = g.name and c.n = g.n
$$;

-- The same over all tenants, for operators: empty outside the tenant 'platform'.

create function app.op_pulse(p_now timestamptz)
returns table (tenant_id text, name text, tier text, queued integer, queue_depth integer, running integer, cap integer,
               weight double precision, paused boolean, draining boolean, blocked boolean, full_workflows text[],
               burst_slots integer, burst_credit_s double precision, debt_s double precision, lanes jsonb, codes jsonb,
               oldest_queued_at timestamptz, waiting jsonb, runs_today integer, daily_runs integer,
               month_limit_microusd bigint, month_reserved_microusd bigint, month_spent_microusd bigint,
               reviews_open integer, reviews_overdue integer, review_next_due timestamptz)
language sql stable as $$ select * from app.pulse(p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_pulse(timestamptz)');

create function app.op_service(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, worker_s double precision, backlog_s double precision, starts integer,
               wait_p50_s double precision, wait_p95_s double precision, wait_p99_s double precision)
language sql stable as $$ select * from app.service(p_since, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_service(timestamptz, timestamptz)');

create function app.op_endings(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, succeeded integer, failed integer, cancelled integer, in_time integer, late integer,
               duration_p50_s double precision, duration_p95_s double precision, duration_p99_s double precision)
language sql stable as $$ select * from app.endings(p_since, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_endings(timestamptz, timestamptz)');

create function app.op_failures(p_since timestamptz, p_now timestamptz)
returns table (tenant_id text, workflow text, code text, count integer)
language sql stable as $$ select * from app.failures(p_since, p_now) where app.tenant() = 'platform' $$;
select app.control('app.op_failures(timestamptz, timestamptz)');

create function app.op_service_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, worker_s double precision)
language sql stable as $$
    select * from app.service_over_time(p_since, p_now, p_bucket_s, p_top) where app.tenant() = 'platform'
$$;
select app.control('app.op_service_over_time(timestamptz, timestamptz, integer, integer)');

create function app.op_depth_over_time(p_since timestamptz, p_now timestamptz, p_bucket_s integer, p_top integer)
returns table (tenant_id text, bucket timestamptz, queued integer)
language sql stable as $$
    select * from app.depth_over_time(p_since, p_now, p_bucket_s, p_top) where app.tenant() = 'platform'
$$;
select app.control('app.op_depth_over_time(timestamptz, timestamptz, integer, integer)');

-- Workers, whether they live, and how full they are.
create function app.op_workers()
returns table (worker_id text, slots integer, held integer, draining boolean, started_at timestamptz,
               heartbeat_at timestamptz)
language sql stable as $$
    select w.worker_id, w.slots, w.held, w.draining, w.started_at, w.heartbeat_at
    from workers w where app.tenant() = 'platform' order by w.started_at, w.worker_id
$$;
select app.control('app.op_workers()');

-- Length and state of each tenant's audit chain.
create function app.op_audit()
returns table (tenant_id text, sealed bigint, unsealed bigint, last_at timestamptz)
language sql stable as $$
    select t.tenant_id, coalesce(h.seq, 0),
           (select count(*) from audit a where a.tenant_id = t.tenant_id and a.seq is null),
           (select max(a.at) from audit a where a.tenant_id = t.tenant_id)
    from tenants t left join audit_heads h on h.tenant_id = t.tenant_id
    where app.tenant() = 'platform' order by t.tenant_id
$$;
select app.control('app.op_audit()');
