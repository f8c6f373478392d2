-- Versions: to which version of a workflow new runs go, and where each version stands.
--
-- A run keeps the version it was submitted with; a route only decides for runs to come that name none. It has a base
-- version and, while a newer one is tried, a canary: a share of the runs and all runs of some tenants go there.
--
--     (no route: the newest version) --try--> base + canary --promote--> base --roll back--> the base before
--                                                   |
--                                                   +------roll back----> base
--
-- Routes hold for the whole platform; operators change them while everything runs. A process reads all of them at
-- once, at most once a second, and only when it submits. On failure: a change is one transaction with its audit entry.
--
-- Which worker may execute which version is the queue's affair (0003_queue.sql); the last functions here help app.claim
-- where workers differ.

create table version_routes (
    workflow   text primary key,
    base       text not null,
    before     text,                          -- the base before this one
    canary     text,
    percent    double precision not null default 0 check (percent between 0 and 100),
    tenants    text[] not null default '{}',  -- whose runs all go to the canary
    changed_at timestamptz not null,
    changed_by text not null,
    check (canary is not null or percent = 0 and tenants = '{}')
);

-- All routes. Which version new runs go to is no tenant's secret; processes that submit read it.
create function app.version_routes()
returns table (workflow text, base text, before text, canary text, percent double precision, tenants text[],
               changed_at timestamptz, changed_by text)
language sql stable as $$ select * from version_routes where app.outside() $$;
select app.control('app.version_routes()');

-- One route, for whoever changes it: nobody else does so until the transaction ends.
create function app.op_version_route(p_workflow text)
returns table (workflow text, base text, before text, canary text, percent double precision, tenants text[],
               changed_at timestamptz, changed_by text)
language plpgsql as $$
begin
    if app.tenant() is distinct from 'platform' then return; end if;
    perform pg_advisory_xact_lock(7305, hashtext(p_workflow));
    return query select * from version_routes r where r.workflow = p_workflow;
end $$;
select app.control('app.op_version_route(text)');

-- Put a route in force; base null: none, new runs go to the newest version. The workflow, when it was an operator.
create function app.op_version_route_set(p_workflow text, p_base text, p_before text, p_canary text,
                                         p_percent double precision, p_tenants text[], p_by text, p_now timestamptz)
returns setof text language plpgsql as $$
begin
    if app.tenant() is distinct from 'platform' then return; end if;
    delete from version_routes r where r.workflow = p_workflow;
    if p_base is not null then
        insert into version_routes
        values (p_workflow, p_base, p_before, p_canary, p_percent, p_tenants, p_now, p_by);
    end if;
    return next p_workflow;
end $$;
select app.control('app.op_version_route_set(text, text, text, text, double precision, text[], text, timestamptz)');

-- Open runs of each version, of all tenants: while there are any its code is needed. workers: that have it and live.
create function app.op_versions(p_alive_since timestamptz, p_idle_since timestamptz)
returns table (workflow text, version text, queued bigint, running bigint, waiting bigint, oldest_at timestamptz,
               workers bigint)
language sql stable as $$
    with runs_open as (
        select r.workflow, r.version, count(*) filter (where r.state = 'queued') as queued,
               count(*) filter (where r.state = 'running') as running,
               count(*) filter (where r.state = 'waiting') as waiting, min(r.submitted_at) as oldest_at
        from tenants t
        cross join lateral (select * from runs o where o.tenant_id = t.tenant_id
                                                   and o.state in ('queued', 'running', 'waiting')) r
        group by r.workflow, r.version
    ), had as (
        select regexp_replace(c.code, '@[^@]*$', '') as workflow, regexp_replace(c.code, '^.*@', '') as version,
               count(*) as workers
        from workers w cross join unnest(w.codes) as c(code)
        where not w.draining and w.heartbeat_at >= case when w.held = 0 then p_idle_since else p_alive_since end
        group by 1, 2
    )
    select workflow, version, coalesce(o.queued, 0), coalesce(o.running, 0), coalesce(o.waiting, 0), o.oldest_at,
           coalesce(h.workers, 0)
    from runs_open o full join had h using (workflow, version)
    where app.tenant() = 'platform'
    order by workflow, version
$$;
select app.control('app.op_versions(timestamptz, timestamptz)');

-- Runs that ended in a window, by version and bucket, and how many of them failed.
create function app.op_version_endings(p_since timestamptz, p_now timestamptz, p_bucket_s integer)
returns table (workflow text, version text, bucket timestamptz, ended bigint, failed bigint)
language sql stable as $$
    select r.workflow, r.version, date_bin(make_interval(secs => p_bucket_s), r.finished_at, 'epoch'), count(*),
           count(*) filter (where r.state = 'failed')
    from tenants t
    cross join lateral (select * from runs f where f.tenant_id = t.tenant_id and f.finished_at > p_since
                                               and f.finished_at <= p_now) r
    where app.tenant() = 'platform'
    group by 1, 2, 3
    order by 3, 1, 2
$$;
select app.control('app.op_version_endings(timestamptz, timestamptz, integer)');

-- Whether a tenant has something queued that a worker with this code can execute, as far as it was not passed over.
create function app.serves(p_codes text[], p_passed text[], p_tenant text) returns boolean language sql stable as $$
    select p_tenant <> all (p_passed) and exists (
        select from queue_flows f where f.tenant_id = p_tenant and f.queued > 0 and f.code = any (p_codes))
$$;

-- The most tenants that a claim asks whether they have something for its worker, and the most flows of its code at which
-- it asks those of whom they are.
create function app.most_asked() returns integer language sql immutable as $$ select 512 $$;

-- The tenants that have something queued of this code; null: more flows than it is worth to look at. From the code to the
-- flows, though the planner may hold code that few have for as common as any.
create function app.few_served(p_codes text[]) returns text[] language sql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
    select coalesce(array_agg(distinct f.tenant_id), '{}')
    from (select tenant_id from queue_flows where queued > 0 and code = any (p_codes) limit app.most_asked() + 1) f
    having count(*) <= app.most_asked()
$$;

-- Who is next once a claim has passed over tenants for want of code: as in 0010_queue_verbs.sql (app.claim,
-- app.quiet_tenant, app.bursting_tenant), among those of which this worker can execute something. p_open: a slot is
-- anybody's; p_wide: slots beyond the headroom are free. A function of its own, so that a claim which passes over nobody
-- is not slowed down by it.
--
-- Who is served moves on in virtual time, and who has nothing for any worker stays where it is: the longer code is
-- missing, the more tenants stand before all others. So where few flows are of its code a claim looks at their tenants
-- only. Else it asks 512, in their order, and then the worker goes on behind them: at once, if they had nothing for it
-- (app.look_again), and with its next claims for a second, if it found something. Then it begins anew, and before it
-- gives up; when it has asked all in vain, after a second.
create function app.next_served(p_worker text, p_open boolean, p_wide boolean, p_free integer, p_platform queue_platform,
                                p_now timestamptz, p_codes text[], p_passed text[])
returns queue_tenants language plpgsql as $$
declare
    tenant     queue_tenants%rowtype;
    far        queue_tenants%rowtype;
    own        workers%rowtype;
    few        text[] := app.few_served(p_codes);
    from_time  double precision := '-infinity';
    from_name  text := '';
    lately     boolean;
begin
    while few is not null loop
        select * into tenant from queue_tenants q
        where q.tenant_id = any (few) and q.tenant_id <> all (p_passed)
          and (q.eligible and (p_open or q.newcomer or q.virtual_time <= p_platform.virtual_time and (
                   q.running < p_free or q.virtual_time + p_platform.mean_s / q.weight <= p_platform.virtual_time))
               or p_open and p_wide and q.may_burst)
        order by not q.eligible, case when p_open or q.newcomer then 0 else 1 + q.running end, q.virtual_time, q.tenant_id
        limit 1 for update skip locked;
        if not found or tenant.eligible or tenant.clock_at = p_now then return tenant; end if;
        update queue_tenants q set clock_at = p_now where q.tenant_id = tenant.tenant_id returning * into tenant;
        if tenant.may_burst then return tenant; end if;
    end loop;

    select * into strict own from workers w where w.worker_id = p_worker;
    -- A second ago or less; not in the future, where a clock that went back has left it.
    lately := own.behind_since > p_now - interval '1 second' and own.behind_since <= p_now;
    if own.behind_time is not null and (not own.behind_taken or lately) then
        from_time := own.behind_time;
        from_name := own.behind_tenant;
    elsif own.behind_time is not null then
        update workers w set behind_time = from_time, behind_tenant = from_name, behind_taken = false
        where w.worker_id = p_worker returning * into own;
    end if;

    if p_open then
        select q.* into tenant
        from (select c.virtual_time, c.tenant_id from queue_tenants c
              where c.eligible and (c.virtual_time, c.tenant_id) > (from_time, from_name)
              order by c.virtual_time, c.tenant_id limit app.most_asked()) c
        join queue_tenants q on q.tenant_id = c.tenant_id
        where q.eligible and app.serves(p_codes, p_passed, q.tenant_id)
        order by c.virtual_time, c.tenant_id limit 1 for update of q skip locked;
    else
        select q.* into tenant
        from (select c.virtual_time, c.tenant_id from queue_tenants c
              where c.eligible and c.newcomer and (c.virtual_time, c.tenant_id) > (from_time, from_name)
              order by c.virtual_time, c.tenant_id limit app.most_asked()) c
        join queue_tenants q on q.tenant_id = c.tenant_id
        where q.eligible and app.serves(p_codes, p_passed, q.tenant_id)
        order by c.virtual_time, c.tenant_id limit 1 for update of q skip locked;
        if found then return tenant; end if;
        select q.* into tenant
        from (select c.tenant_id from queue_tenants c
              where c.eligible and (c.virtual_time, c.tenant_id) > (from_time, from_name)
                and c.virtual_time <= p_platform.virtual_time
              order by c.virtual_time, c.tenant_id limit app.most_asked()) c
        join queue_tenants q on q.tenant_id = c.tenant_id
        where q.eligible and app.serves(p_codes, p_passed, q.tenant_id)
          and (q.running < p_free or q.virtual_time + p_platform.mean_s / q.weight <= p_platform.virtual_time)
        order by q.running, q.virtual_time, q.tenant_id limit 1 for update of q skip locked;
        return tenant;
    end if;
    if found then
        update workers w set behind_taken = true, behind_since = p_now
        where w.worker_id = p_worker and w.behind_time is not null and not w.behind_taken;
        return tenant;
    end if;

    select * into far from queue_tenants c
    where c.eligible and (c.virtual_time, c.tenant_id) > (from_time, from_name)
    order by c.virtual_time, c.tenant_id offset app.most_asked() - 1 limit 1;
    if found then
        if own.behind_time is null and lately then return null; end if;
        update workers w set behind_time = far.virtual_time, behind_tenant = far.tenant_id, behind_moved = p_now
        where w.worker_id = p_worker;
        return null;
    end if;
    while p_wide loop
        select q.* into tenant
        from (select c.virtual_time, c.tenant_id from queue_tenants c where c.may_burst
              order by c.virtual_time, c.tenant_id limit app.most_asked()) c
        join queue_tenants q on q.tenant_id = c.tenant_id
        where q.may_burst and app.serves(p_codes, p_passed, q.tenant_id)
        order by c.virtual_time, c.tenant_id limit 1 for update of q skip locked;
        exit when not found;
        if tenant.clock_at = p_now then return tenant; end if;
        update queue_tenants q set clock_at = p_now where q.tenant_id = tenant.tenant_id returning * into tenant;
        if tenant.may_burst then return tenant; end if;
    end loop;
    -- The end. If it found something since it last asked the first ones, they may have something since: again from there.
    update workers w
    set behind_time = case when own.behind_taken then '-infinity'::double precision end,
        behind_tenant = case when own.behind_taken then '' end,
        behind_moved = case when own.behind_taken then p_now end, behind_since = p_now, behind_taken = false
    where w.worker_id = p_worker and own.behind_time is not null;
    return null;
end $$;

-- When a claim that found nothing is to be made again, though nothing changes: at once, when there are tenants that it did
-- not ask; when the pace lets runs start (p_opens_at), if some may; null: it is no use.
create function app.look_again(p_worker text, p_opens_at timestamptz, p_now timestamptz, p_codes text[],
                               p_passed text[]) returns timestamptz language sql stable as $$
    select case
        when exists (select from workers w where w.worker_id = p_worker and w.behind_moved = p_now) then p_now
        when exists (select from workers w where w.worker_id = p_worker and w.behind_time is null
                                             and w.behind_since > p_now - interval '1 second'
                                             and w.behind_since <= p_now) then (
            select w.behind_since + interval '1 second' from workers w where w.worker_id = p_worker)
        when p_opens_at <= p_now or p_opens_at = 'infinity' then null
        when p_passed = '{}' and exists (select from queue_tenants q where q.eligible or q.may_burst) then p_opens_at
        when exists (select from queue_tenants q where q.tenant_id = any (app.few_served(p_codes))
                                                   and q.tenant_id <> all (p_passed) and (q.eligible or q.may_burst))
            then p_opens_at
        when app.few_served(p_codes) is not null then null
        when exists (select from (select q.tenant_id from queue_tenants q where q.eligible
                                  order by q.virtual_time, q.tenant_id limit app.most_asked()) q
                     where app.serves(p_codes, p_passed, q.tenant_id)) then p_opens_at
        when exists (select from (select q.tenant_id from queue_tenants q where q.may_burst
                                  order by q.virtual_time, q.tenant_id limit app.most_asked()) q
                     where app.serves(p_codes, p_passed, q.tenant_id)) then p_opens_at
        when exists (select from queue_tenants q where q.eligible
                     order by q.virtual_time, q.tenant_id offset app.most_asked()) then p_opens_at
    end
$$;

-- Patch markers: which way a run went at a change of its code. Decided once, when it first comes there; after_step is the
-- number of the last step before it.
create table run_patches (
    tenant_id  text not null,
    run_id     text not null,
    name       text not null,
    after_step integer not null,
    taken      boolean not null,   -- false: it had gone past there under the old code
    primary key (run_id, name),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
select app.fence('run_patches', 'select, insert, update');
