-- Statements of core/db/lock.py. The lock belongs to the session: it ends with the connection, however that ends.

-- name: wait_for_lock
-- Return when the lock is ours. Until then this is a waiting statement, not a poll.
select pg_advisory_lock($1);
