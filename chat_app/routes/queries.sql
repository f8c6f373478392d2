-- name: usage
-- What a tenant uses now: queue, slots, waits by cause, quota of the day, open reviews.
-- Row-level security narrows it to the tenant of the transaction.
select queued, running, cap, waiting, runs_today, reviews_open, reviews_overdue
from app.pulse($1);
