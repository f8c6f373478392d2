-- What the scheduler counts for metrics: every tenant now, and what ended since it last looked.
--
-- Counts, times and sums, never content. Both look across tenants, so they refuse inside a tenant's transaction.

-- Per tenant: queue, slots and waits now; of (p_since, p_until] how many runs ended how, how long they took from
-- submission to end, how many spent more than their budget, and how long slots that were given back had been
-- waited for. Seconds are listed one by one: whoever asks often gets few, and makes histograms of them.
create function app.census(p_since timestamptz, p_until timestamptz, p_now timestamptz)
returns table (tenant_id text, queued integer, running integer, cap integer, paused boolean,
               oldest_queued_at timestamptz, waiting jsonb, succeeded integer, failed integer, cancelled integer,
               dead integer, overruns integer, durations_s double precision[], waits_s double precision[])
language sql stable as $$
    select p.tenant_id, p.queued, p.running, p.cap, p.paused, p.oldest_queued_at, p.waiting,
           ended.succeeded, ended.failed, ended.cancelled, ended.dead, ended.overruns, ended.durations_s, uses.waits_s
    from app.pulse(p_now) p
    cross join lateral (
        select (count(*) filter (where r.state = 'succeeded'))::integer as succeeded,
               (count(*) filter (where r.state = 'failed'))::integer as failed,
               (count(*) filter (where r.state = 'cancelled'))::integer as cancelled,
               (count(*) filter (where r.state = 'dead'))::integer as dead,
               (count(*) filter (where b.spent_microusd > b.limit_microusd))::integer as overruns,
               coalesce(array_agg(extract(epoch from r.finished_at - r.submitted_at)::double precision), '{}')
                   as durations_s
        from runs r
        left join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || r.run_id
        where r.tenant_id = p.tenant_id and r.finished_at > p_since and r.finished_at <= p_until
    ) ended
    cross join lateral (
        select coalesce(array_agg(extract(epoch from u.claimed_at - u.queued_at)::double precision), '{}') as waits_s
        from slot_uses u
        where u.tenant_id = p.tenant_id and u.released_at > p_since and u.released_at <= p_until
          and u.worker_id is not null
    ) uses
    where app.outside()
$$;
select app.control('app.census(timestamptz, timestamptz, timestamptz)');

-- Open reviews per tenant, pool and priority class, and how many of them are past their SLA.
create function app.census_reviews(p_now timestamptz)
returns table (tenant_id text, pool text, priority smallint, open integer, overdue integer)
language sql stable as $$
    select r.tenant_id, r.pool, r.priority, count(*)::integer, (count(*) filter (where r.due_at < p_now))::integer
    from reviews r where r.state = 'open' and app.outside()
    group by r.tenant_id, r.pool, r.priority
$$;
select app.control('app.census_reviews(timestamptz)');
