-- name: usage
-- What a tenant uses now: queue (by lane, too), slots, debt of bursts, waits by cause, quota of the day, open reviews.
-- Row-level security narrows it to the tenant of the transaction.
select queued, lanes, running, cap, debt_s, waiting, runs_today, reviews_open, reviews_overdue
from app.pulse($1);
