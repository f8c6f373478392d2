-- Acts on organisations that only an operator (or the seed) performs. The Python service checks the right
-- platform:operate, or tenant:write for one's own tenant, before it calls any of these.

create function app.tenant_create(p_tenant text, p_name text, p_org text, p_region text, p_policy jsonb,
                                  p_actor text, p_now timestamptz) returns boolean
language plpgsql as $$
begin
    insert into tenants (tenant_id, name, org_id, region, created_at)
    select p_tenant, p_name, p_org, p_region, p_now where app.outside() on conflict do nothing;
    if not found then return false; end if;
    insert into policies values (p_tenant, 1, p_policy, p_now, p_actor);
    perform app.queue_policy(p_tenant, p_policy, p_now);
    return true;
end $$;
select app.control('app.tenant_create(text, text, text, text, jsonb, text, timestamptz)');

-- Another time zone is no new day: the day that it is there by now begins with what the one before has admitted. Called
-- before the tenant's queue is locked, as submissions lock them.
create function app.day_kept(p_tenant text, p_before jsonb, p_after jsonb, p_now timestamptz) returns void
language sql as $$
    insert into run_days as d (tenant_id, day, runs)
    select b.tenant_id, (p_now at time zone (p_after ->> 'timezone'))::date, b.runs from run_days b
    where b.tenant_id = p_tenant and b.day = (p_now at time zone (p_before ->> 'timezone'))::date
      and p_before ->> 'timezone' <> p_after ->> 'timezone'
    on conflict (tenant_id, day) do update set runs = greatest(d.runs, excluded.runs)
$$;

-- A new version of the policy in place of version p_version; what it says of the queue reaches it in the same transaction,
-- and what waits for a limit that is higher now is woken.
-- Null when another version is in force by now: what was decided about that one must be decided anew.
create function app.tenant_policy_change(p_tenant text, p_version integer, p_policy jsonb, p_actor text,
                                         p_now timestamptz)
returns integer language plpgsql as $$
declare
    next_version integer;
    before       jsonb := (select p.document from policies p where p.tenant_id = p_tenant and p.version = p_version);
begin
    update tenants set policy_version = policy_version + 1
    where tenant_id = p_tenant and policy_version = p_version and app.outside()
    returning policy_version into next_version;
    if not found then return null; end if;
    insert into policies values (p_tenant, next_version, p_policy, p_now, p_actor);
    perform app.day_kept(p_tenant, before, p_policy, p_now);
    perform app.queue_policy(p_tenant, p_policy, p_now);
    perform app.waits_raised(p_tenant, before, p_policy, p_now);
    return next_version;
end $$;
select app.control('app.tenant_policy_change(text, integer, jsonb, text, timestamptz)');

create function app.tenant_list()
returns table (tenant_id text, name text, org_id text, region text, policy_version integer, document jsonb,
               paused boolean, draining boolean)
language sql stable as $$
    select t.tenant_id, t.name, t.org_id, t.region, t.policy_version, p.document, coalesce(q.paused, false),
           coalesce(q.draining, false)
    from tenants t
    join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    left join queue_tenants q on q.tenant_id = t.tenant_id
    where app.outside()
    order by t.tenant_id
$$;
select app.control('app.tenant_list()');

-- What a context is made of: the tenant and its policy in force.
create function app.tenant_policy(p_tenant text)
returns table (tenant_id text, name text, org_id text, region text, policy_version integer, document jsonb,
               paused boolean, draining boolean)
language sql stable as $$
    select t.tenant_id, t.name, t.org_id, t.region, t.policy_version, p.document, coalesce(q.paused, false),
           coalesce(q.draining, false)
    from tenants t
    join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    left join queue_tenants q on q.tenant_id = t.tenant_id
    where t.tenant_id = p_tenant and app.outside()
$$;
select app.control('app.tenant_policy(text)');

create function app.user_create(p_user text, p_tenant text, p_email text, p_name text, p_hash text,
                                p_roles text[], p_now timestamptz) returns boolean
language plpgsql as $$
begin
    insert into users (user_id, tenant_id, email, name, password_hash, roles, created_at)
    select p_user, p_tenant, p_email, p_name, p_hash, p_roles, p_now where app.outside()
    on conflict (tenant_id, email) do nothing;
    return found;
end $$;
select app.control('app.user_create(text, text, text, text, text, text[], timestamptz)');

-- Other roles, or no access any more; null leaves it as it is. Ends the person's sessions. False: nobody there.
create function app.user_change(p_tenant text, p_user text, p_roles text[], p_disabled boolean, p_now timestamptz)
returns boolean language plpgsql as $$
begin
    update users
    set roles = coalesce(p_roles, roles), role_version = role_version + 1,
        disabled_at = case when p_disabled is null then disabled_at
                           when p_disabled then coalesce(disabled_at, p_now) end
    where tenant_id = p_tenant and user_id = p_user and app.outside();
    return found;
end $$;
select app.control('app.user_change(text, text, text[], boolean, timestamptz)');
