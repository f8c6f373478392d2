-- Who waits for money in a family of runs.

-- name: short
-- Runs of a family, from this one down, that ask people for money: their questions, locked, before the queue is.
select v.run_id, v.step from waits w
join runs r on r.tenant_id = w.tenant_id and r.run_id = w.run_id
join reviews v on v.tenant_id = w.tenant_id and v.run_id = w.run_id and v.step = w.step and v.state = 'open'
where w.tenant_id = app.tenant() and w.cause = 'budget' and w.key is null and (r.run_id = $1 or $1 = any(r.ancestors))
order by v.review_id for update of v;

-- name: keep
-- Runs that may be woken, locked, before any account is: children before those above them.
select count(*) from (
    select from runs where tenant_id = app.tenant() and run_id = any($1)
    order by cardinality(ancestors) desc, run_id for no key update
) kept;

-- name: withdraw
-- A question about money that was asked under another budget: whoever still lacks it asks again.
update reviews set state = 'cancelled', claims = '[]', decided_at = $3
where tenant_id = app.tenant() and run_id = $1 and step = $2 and state = 'open';
