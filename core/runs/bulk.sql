-- Acts on many runs (core/db/migrations/0018_bulk.sql).

-- name: create
-- A bulk, before its runs.
insert into bulks (bulk_id, tenant_id, act, filter, actor_kind, actor_id, user_id, created_at)
values ($1, app.tenant(), $2, $3, $4, $5, $6, $7);

-- name: choose
-- Fix its runs, newest first, up to $12: of these states, held or not (null: any), and by the filters (null: any).
insert into bulk_runs (tenant_id, bulk_id, run_id, position, was)
select app.tenant(), $1, c.run_id, row_number() over (order by c.submitted_at desc, c.run_id desc), c.state
from (select r.run_id, r.submitted_at, r.state from runs r
      where r.tenant_id = app.tenant() and r.state = any($2::text[]) and ($3::boolean is null or r.held = $3)
        and ($4::text is null or r.workflow = $4)
        and ($5::text is null or r.state = $5)
        and ($6::text is null or r.batch_id = $6)
        and ($7::text is null or r.outcome = $7)
        and ($8::text is null or r.error ->> 'code' = $8)
        and ($9::timestamptz is null or r.submitted_at >= $9)
        and ($10::timestamptz is null or r.submitted_at < $10)
        and ($11::text is null or r.user_id = $11)
      order by r.submitted_at desc, r.run_id desc limit $12) c;

-- name: found
-- One bulk of the tenant.
select bulk_id, act, filter, state, actor_kind || ':' || actor_id as actor, created_at, applied_at, done_at
from bulks where tenant_id = app.tenant() and bulk_id = $1;

-- name: counts
-- Its runs by their state at the preview and what became of them.
select was, outcome, reason, count(*) as runs from bulk_runs
where tenant_id = app.tenant() and bulk_id = $1 group by was, outcome, reason order by count(*) desc, was, reason;

-- name: sample
-- The first of its runs, as they stand.
select r.run_id, r.workflow, r.version, r.state, r.outcome, r.error ->> 'code' as error_code, r.submitted_at
from bulk_runs b join runs r on r.run_id = b.run_id
where b.tenant_id = app.tenant() and b.bulk_id = $1 order by b.position limit $2;

-- name: apply
-- Begin to apply what was only looked at; no row when somebody did before.
update bulks set state = 'applying', actor_kind = $2, actor_id = $3, user_id = $4, applied_at = $5
where tenant_id = app.tenant() and bulk_id = $1 and state = 'previewed'
returning act;

-- name: next
-- A run on which nobody has acted yet, and that nobody acts on now.
select run_id, was from bulk_runs where tenant_id = app.tenant() and bulk_id = $1 and outcome is null
order by position limit 1 for update skip locked;

-- name: became
-- What became of it.
update bulk_runs set outcome = $3, reason = $4 where tenant_id = app.tenant() and bulk_id = $1 and run_id = $2;

-- name: finish
-- It is done when nothing is left, whoever did the last.
update bulks b set state = 'done', done_at = $2
where b.tenant_id = app.tenant() and b.bulk_id = $1 and b.state = 'applying'
  and not exists (select from bulk_runs r where r.bulk_id = $1 and r.outcome is null);

-- name: applying
-- Those of all tenants that somebody must go on with.
select tenant_id, bulk_id, actor_kind, actor_id, user_id from app.bulks_applying($1);

-- name: purge
-- Forget old ones, some at a time; how many.
select app.bulks_purge($1, $2);
