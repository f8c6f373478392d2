-- Statements of core/db/pool.py. Each block travels as one message without parameters, for a transaction that asks
-- one thing is three messages, not eight, and a statement that is a transaction of its own two.

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
-- For one statement that is a transaction of its own. It is not followed by a message: the tenant, and whatever else the
-- statement leaves, is forgotten when the connection is used again, here or by set_config and commit above.
select pg_advisory_unlock_all(); close all; unlisten *; reset all; select set_config('app.tenant', '{tenant}', false);

-- name: undo_one
-- It was undone by itself.
select pg_advisory_unlock_all(); close all; unlisten *; reset all;

-- name: server_process
-- The process at the other end. It is not the one we were told at the start when a pooler stands in between.
select pg_backend_pid();
