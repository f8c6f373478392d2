-- What the dashboard reads. Nothing here writes: acts go through the services of core.
-- Blocks op_… are the operators' view over all tenants, without content (core/db/migrations/0009_operations.sql);
-- their namesakes are a tenant's own, narrowed by row-level security.

-- name: pulse
-- What stands now: queue, slots, waits by cause, quota, budget, reviews.
select * from app.pulse($1);

-- name: op_pulse
-- The same, all tenants.
select * from app.op_pulse($1);

-- name: service
-- Worker-seconds, backlog and waits between two moments.
select * from app.service($1, $2);

-- name: op_service
-- The same, all tenants.
select * from app.op_service($1, $2);

-- name: endings
-- Runs that ended between two moments, their durations, and how many were in time.
select * from app.endings($1, $2);

-- name: op_endings
-- The same, all tenants.
select * from app.op_endings($1, $2);

-- name: failures
-- Failed runs between two moments by workflow and error code.
select * from app.failures($1, $2);

-- name: op_failures
-- The same, all tenants.
select * from app.op_failures($1, $2);

-- name: service_over_time
-- Worker-seconds per bucket of the busiest tenants, and of all others together.
select * from app.service_over_time($1, $2, $3, $4);

-- name: op_service_over_time
-- The same, all tenants.
select * from app.op_service_over_time($1, $2, $3, $4);

-- name: depth_over_time
-- Runs in the queue at the end of each bucket, of the tenants with the most, and of all others together.
select * from app.depth_over_time($1, $2, $3, $4);

-- name: op_depth_over_time
-- The same, all tenants.
select * from app.op_depth_over_time($1, $2, $3, $4);

-- name: run_rows
-- A page of runs without content: tenant, user, state, workflow, batch, outcome, search, cursor, limit.
select * from app.run_rows($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: op_run_rows
-- The same, all tenants.
select * from app.op_run_rows($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: wait_causes
-- Seconds waited by cause, of the runs that started between two moments.
select * from app.wait_causes($1, $2);

-- name: op_wait_causes
-- The same, all tenants.
select * from app.op_wait_causes($1, $2);

-- name: wait_over_time
-- The 95th percentile of waits per bucket of time, of the tenants that waited most.
select * from app.wait_over_time($1, $2, $3, $4);

-- name: op_wait_over_time
-- The same, all tenants.
select * from app.op_wait_over_time($1, $2, $3, $4);

-- name: op_platform
-- The cap of the whole platform.
select * from app.op_platform();

-- name: version_endings
-- Runs that ended between two moments, by version and bucket, and how many failed.
select * from app.op_version_endings($1, $2, $3);

-- name: live_codes
-- The code of workers that live.
select app.live_codes($1, $2);

-- name: live_slots
-- Slots of the workers heard of since a moment.
select app.live_slots($1, $2);

-- name: op_workers
-- All workers.
select * from app.op_workers();

-- name: op_audit
-- Length of each tenant's audit chain.
select * from app.op_audit();

-- name: people
-- Who is who in the transaction's own tenant.
select user_id, name from users where tenant_id = app.tenant();

-- name: own_audit
-- The newest acts in the transaction's own tenant; for operators that is 'platform'.
select at, actor, act, subject, before, after, policy_version, seq from audit
where tenant_id = app.tenant() order by at desc, entry_id desc limit $1;
