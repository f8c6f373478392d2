-- name: reserve
-- Promise an amount under a key; 'ok' or the account that does not cover it.
select app.ledger_reserve($1, $2, $3, $4, $5, $6, $7);

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
