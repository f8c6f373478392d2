-- What is told of runs without their content (core/db/migrations/0024_run_lists.sql, 0014_visibility.sql). Blocks op_…
-- are the operators' view over all tenants; their namesakes are a tenant's own, narrowed by row-level security.

-- name: run_rows
-- Runs, newest first: of a tenant, in a state, of a workflow, with an id; null does not filter; at most $5.
select run_id, tenant_id, workflow, version, lane, state, cause, source, batch_id, outcome, error_code, attempt,
       worker_seconds, cost_microusd, budget_microusd, submitted_at, started_at, finished_at, held, forked_from
from app.run_rows($1, null, $2, $3, null, null, $4, null, null, $5);

-- name: op_run_rows
-- The same, all tenants.
select run_id, tenant_id, workflow, version, lane, state, cause, source, batch_id, outcome, error_code, attempt,
       worker_seconds, cost_microusd, budget_microusd, submitted_at, started_at, finished_at, held, forked_from
from app.op_run_rows($1, null, $2, $3, null, null, $4, null, null, $5);

-- name: step_rows
-- Attempts of the steps of a run.
select step, attempt, name, kind, state, cost_microusd, model, started_at, finished_at, error_code
from app.step_rows($1);

-- name: op_step_rows
-- The same, any tenant.
select step, attempt, name, kind, state, cost_microusd, model, started_at, finished_at, error_code
from app.op_step_rows($1);

-- name: passage_rows
-- When a run was in the queue and in a slot, and what it waited for there.
select queued_at, claimed_at, released_at, burst, capped_s, paused_s, no_worker_s, no_code_s
from app.passage_rows($1, $2);

-- name: op_passage_rows
-- The same, any tenant.
select queued_at, claimed_at, released_at, burst, capped_s, paused_s, no_worker_s, no_code_s
from app.op_passage_rows($1, $2);

-- name: transition_rows
-- What happened to a run, with the named cause of each wait, the step and its attempt.
select seq, at, kind, cause, step, attempt from app.transition_rows($1);

-- name: op_transition_rows
-- The same, any tenant.
select seq, at, kind, cause, step, attempt from app.op_transition_rows($1);

-- name: relative_rows
-- A run's parent, its children by state, and some of them.
select kind, run_id, workflow, state, runs from app.relative_rows($1);

-- name: op_relative_rows
-- The same, any tenant.
select kind, run_id, workflow, state, runs from app.op_relative_rows($1);
