-- Runs may last only so long, from their first start (after a retry: from the next one) to their end, waits included.
-- Workers end what executes; what is parked is found here.

create index runs_parked on runs (tenant_id, started_at) where state = 'waiting';
create index runs_parked_timed on runs (tenant_id, started_at) where state = 'waiting' and timeout_s is not null;

-- Parked runs that have lasted longer than their tenant's policy or their workflow allows, the oldest of each tenant
-- first. Those that are undoing what they did are on their way to their end already.
create function app.overlong(p_now timestamptz, p_limit integer)
returns table (tenant_id text, run_id text, timeout_s double precision)
language sql stable as $$
    select t.tenant_id, r.run_id, r.timeout_s
    from tenants t
    join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    cross join lateral (
        (select r.run_id, r.timeout_s from runs r
         where r.tenant_id = t.tenant_id and r.state = 'waiting' and r.compensating is null
           and r.started_at < p_now - make_interval(secs => (p.document ->> 'max_duration_s')::double precision)
         order by r.started_at limit p_limit)
        union
        (select r.run_id, r.timeout_s from runs r
         where r.tenant_id = t.tenant_id and r.state = 'waiting' and r.timeout_s is not null and r.compensating is null
           and r.started_at < p_now - make_interval(secs => r.timeout_s)
         order by r.started_at limit p_limit)
    ) r
    where app.outside()
    limit p_limit
$$;
select app.control('app.overlong(timestamptz, integer)');
