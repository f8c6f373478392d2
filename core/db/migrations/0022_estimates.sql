-- What steps have cost: the estimate of a step that declares none, how good estimates were, and what a higher limit wakes.
--
-- One row per tenant, workflow and step: the last 64 costs and the 95th percentile of them, so that an estimate is one
-- row to read. It is written in the transaction that settles the step, after the accounts: a tenant's settlements wait
-- for each other at the month's account anyway, so nobody waits here who has not waited there, and no row is shared by
-- two tenants.

create table step_costs (
    tenant_id          text not null references tenants,
    workflow           text not null,
    step               text not null,
    settled            bigint not null default 0,     -- attempts that ended with a result
    costs              bigint[] not null default '{}', -- of the last 64 of them, the oldest overwritten next
    p95_microusd       bigint not null default 0,
    exceeded           bigint not null default 0,     -- cost more than was reserved at first
    overshoot_microusd bigint not null default 0,     -- how much more, in sum
    primary key (tenant_id, workflow, step)
);
create index step_costs_everywhere on step_costs (workflow, step, settled desc);
select app.fence('step_costs', 'select');

-- An attempt of a step is settled under p_key: what was reserved for it later (keys p_key/1, /2 ...) is given back, and
-- with p_learn its cost is kept.
create function app.step_settled(p_key text, p_run_id text, p_step integer, p_attempt integer, p_cost bigint,
                                 p_learn boolean, p_now timestamptz) returns boolean
language plpgsql as $$
declare
    named    record;
    known    step_costs%rowtype;
    reserved bigint;
begin
    perform app.ledger_abandon(p_key || '/', p_now);
    if not p_learn then return true; end if;
    select r.workflow, s.name into named from runs r
    join run_steps s on s.run_id = r.run_id and s.step = p_step and s.attempt = p_attempt
    where r.tenant_id = app.tenant() and r.run_id = p_run_id;
    if not found then return true; end if;
    select l.amount_microusd into strict reserved from ledger l
    where l.tenant_id = app.tenant() and l.key = p_key and l.kind = 'reserve';
    insert into step_costs (tenant_id, workflow, step) values (app.tenant(), named.workflow, named.name)
    on conflict do nothing;
    select * into strict known from step_costs c
    where c.tenant_id = app.tenant() and c.workflow = named.workflow and c.step = named.name for update;
    known.costs[1 + known.settled % 64] := p_cost;
    update step_costs c
    set settled = known.settled + 1, costs = known.costs,
        p95_microusd = (select percentile_disc(0.95) within group (order by k.cost) from unnest(known.costs) k(cost)),
        exceeded = known.exceeded + (p_cost > reserved)::integer,
        overshoot_microusd = known.overshoot_microusd + greatest(0, p_cost - reserved)
    where c.tenant_id = app.tenant() and c.workflow = named.workflow and c.step = named.name;
    return true;
end $$;
select app.control('app.step_settled(text, text, integer, integer, bigint, boolean, timestamptz)');

-- The 95th percentile of what a step has cost whoever ran it most, null while fewer than p_enough of its ends are known.
create function app.step_p95(p_workflow text, p_step text, p_enough integer) returns bigint language sql stable as $$
    select case when count(*) >= p_enough then percentile_disc(0.95) within group (order by k.cost) end
    from (select c.costs from step_costs c where c.workflow = p_workflow and c.step = p_step
          order by c.settled desc limit 20) most, unnest(most.costs) k(cost)
$$;
select app.control('app.step_p95(text, text, integer)');

-- The same rows for operators, of one tenant or of all: empty outside the tenant 'platform'.
create function app.op_step_costs(p_tenant text, p_limit integer)
returns table (tenant_id text, workflow text, step text, settled bigint, p95_microusd bigint, exceeded bigint,
               overshoot_microusd bigint)
language sql stable as $$
    select c.tenant_id, c.workflow, c.step, c.settled, c.p95_microusd, c.exceeded, c.overshoot_microusd
    from step_costs c where app.tenant() = 'platform' and (p_tenant is null or c.tenant_id = p_tenant)
    order by c.settled desc, c.tenant_id, c.workflow, c.step limit p_limit
$$;
select app.control('app.op_step_costs(text, integer)');

-- A policy gives more than the one before it: what waits for the month's budget, or for a rate limit, waits no longer
-- than it must by the new one. A process may go by the old policy for a second more, so nothing is woken before that.
-- Of those that wait for a rate limit as many are woken as a window holds, the next ones a window later.
create function app.waits_raised(p_tenant text, p_before jsonb, p_after jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare soon timestamptz := p_now + interval '1.5 seconds';
begin
    perform app.outside();
    if (p_after ->> 'budget_month_microusd')::bigint > (p_before ->> 'budget_month_microusd')::bigint then
        update waits w set wake_at = least(w.wake_at, soon)
        where w.tenant_id = p_tenant and w.cause = 'budget' and w.key = 'month';
    end if;
    with raised as (
        select b.key, (a.value ->> 'limit')::integer as calls, (a.value ->> 'window_s')::integer as window_s
        from jsonb_each(p_before -> 'rate_limits') b left join jsonb_each(p_after -> 'rate_limits') a on a.key = b.key
        where a.key is null or (a.value ->> 'limit')::integer > (b.value ->> 'limit')::integer
           or (a.value ->> 'window_s')::integer < (b.value ->> 'window_s')::integer
    ), placed as (
        select w.run_id, w.step, soon + make_interval(secs => coalesce(
                   (row_number() over (partition by w.key order by w.wake_at, w.since, w.run_id) - 1) / r.calls * r.window_s,
                   0)) as at
        from waits w join raised r on r.key = w.key where w.tenant_id = p_tenant and w.cause = 'rate'
    )
    update waits w set wake_at = least(w.wake_at, p.at) from placed p
    where w.run_id = p.run_id and w.step = p.step and w.cause = 'rate';
end $$;
select app.control('app.waits_raised(text, jsonb, jsonb, timestamptz)');
