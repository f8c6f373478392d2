-- Statements of core/db/pool.py. Each block travels as one message without parameters, for a transaction that asks
-- one thing is three messages, not eight.

-- name: begin
-- A transaction for one tenant, '' for none. The name is put between the quotes by core/db/pool.py, which refuses
-- whatever is not the name of a tenant.
begin; select set_config('app.tenant', '{tenant}', true);

-- name: commit
-- Done; and whatever a statement may have left on the connection is forgotten before anybody else gets it.
commit; select pg_advisory_unlock_all(); close all; unlisten *; reset all;

-- name: rollback
-- Undone, and forgotten in the same way.
rollback; select pg_advisory_unlock_all(); close all; unlisten *; reset all;

-- name: begin_one
-- For one statement that is a transaction of its own.
select set_config('app.tenant', '{tenant}', false);

-- name: end_one
-- It was done or undone by itself; the tenant is forgotten with all else.
select pg_advisory_unlock_all(); close all; unlisten *; reset all;

-- name: server_process
-- The process at the other end. It is not the one we were told at the start when a pooler stands in between.
select pg_backend_pid();
