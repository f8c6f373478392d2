-- name: reserve
-- Promise an amount under a key; 'ok' or the account that does not cover it.
select app.ledger_reserve($1, $2, $3, $4, $5, $6, $7, $8);

-- name: overrun
-- Of the accounts of a run, of those above it, and of month $2, the nearest to the run that more was spent from or promised
-- on than it had; no row when there is none. From the names to the accounts: a tenant has one for each of its runs.
with counted as (
    select 'run:' || a.run_id as account, a.depth
    from unnest(coalesce((select r.ancestors from runs r where r.tenant_id = app.tenant() and r.run_id = $1), '{}')
                || $1::text) with ordinality as a (run_id, depth)
    union all
    select 'month:' || $2::text, 0
)
select case c.account when 'run:' || $1 then 'run' when 'month:' || $2 then 'month' else 'parent' end as account,
       b.reserved_microusd + b.spent_microusd - b.limit_microusd as over_microusd
from counted c join budget_accounts b on b.tenant_id = app.tenant() and b.account = c.account
where b.reserved_microusd + b.spent_microusd > b.limit_microusd
order by c.depth desc limit 1;

-- name: tightest_above
-- The account that has the least left of the runs above one.
select b.limit_microusd, b.reserved_microusd, b.spent_microusd
from runs r cross join unnest(r.ancestors) above (run_id)
join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || above.run_id
where r.tenant_id = app.tenant() and r.run_id = $1
order by b.limit_microusd - b.reserved_microusd - b.spent_microusd limit 1;

-- name: settle
-- Replace the promise by what was really spent; false when that was done before.
select app.ledger_settle($1, $2, $3, $4);

-- name: abandon
-- Give back what earlier attempts promised and never settled.
select app.ledger_abandon($1, $2);

-- name: release_forsaken
-- Give back what nobody will settle any more, of all tenants.
select app.ledger_forsaken($1, $2, $3);

-- name: balance
-- One account of the tenant.
select limit_microusd, reserved_microusd, spent_microusd
from budget_accounts where tenant_id = app.tenant() and account = $1;

-- name: cover
-- Raise a run's limit until it covers an amount more.
select app.budget_cover($1, $2, $3);

-- name: set_limit
-- Say what a run may spend in all; of it and the runs above it, from the root down: before, used, after.
select run_id, before_microusd, used_microusd, after_microusd from app.budget_set($1, $2);

-- name: settle_step
-- Settle an attempt of a step with all that was reserved for it, and keep what it cost; false when that was done before.
select case when app.ledger_settle($1, $2, $3, $4) then app.step_settled($1, $5, $6, $7, $2, $8, $4) else false end;

-- name: estimate
-- The 95th percentile of what a step of a workflow has cost: the tenant's own, else everybody's; null: not known yet.
select coalesce((select c.p95_microusd from step_costs c
                 where c.tenant_id = app.tenant() and c.workflow = $1 and c.step = $2 and c.settled >= $3::integer),
                app.step_p95($1, $2, $3::integer));

-- name: step_costs
-- What the tenant's steps have cost, those that ended most often first.
select tenant_id, workflow, step, settled, p95_microusd, exceeded, overshoot_microusd from step_costs
where tenant_id = app.tenant() and ($1::text is null or tenant_id = $1) order by settled desc, workflow, step limit $2;

-- name: op_step_costs
-- The same of one tenant, or of all, for operators.
select tenant_id, workflow, step, settled, p95_microusd, exceeded, overshoot_microusd from app.op_step_costs($1, $2);
