-- What people do to one run (core/db/migrations/0017_run_end.sql, 0020_control.sql).

-- name: hold
-- Pause a run; how it stood, no row when there is no such run.
select state, held, cancelling, undoing from app.queue_hold($1, $2);

-- name: resume
-- Resume a run; how it stood, and where it stands now; no row when there is no such run.
select was, held, state, cause from app.queue_resume($1, $2);

-- name: standing
-- Where a run stands, and it stays there until the end of the transaction.
select state from runs where tenant_id = app.tenant() and run_id = $1 for no key update;

-- name: retry
-- A run that did not succeed starts over, keeping what its finished steps recorded. Its duration counts anew.
update runs set state = 'queued', cause = null, error = null, output = null, outcome = null, finished_at = null,
                started_at = null, recoveries = 0, cancel_requested = false, queued_at = $2
where tenant_id = app.tenant() and run_id = $1 and finished_at is not null and state <> 'succeeded';

-- name: asked_from
-- What people were asked at a step and after it, locked: reviews come before the queue.
select count(*) from (
    select from reviews where tenant_id = app.tenant() and run_id = $1 and step >= $2 order by review_id for update
) asked;

-- name: ask_again
-- What they answered there is no answer any more: the step asks again. Unless the run is still undoing what it did.
update reviews v set state = 'cancelled', claims = '[]'
from runs r
where v.tenant_id = app.tenant() and v.run_id = $1 and v.step >= $2 and v.state in ('decided', 'expired')
  and r.run_id = $1 and r.compensating is null;

-- name: set_aside
-- The records of a step and of those after it answer nobody any more, nor does one that has spawned some of its children
-- go on with these; whether there was any attempt at it. Unless the run is still undoing what it did: it finds these steps
-- by their records.
with redone as (
    update run_steps s set aside = s.state <> 'failed' or s.kind = 'spawn', final = false
    from runs r
    where s.run_id = $1 and s.step >= $2
      and ((s.state in ('done', 'skipped') or s.kind = 'spawn') and not s.aside or s.final)
      and r.run_id = $1 and r.compensating is null
)
select exists (select from run_steps where run_id = $1 and step >= $2);

-- name: open_steps
-- Attempts that a cancellation or failure cut off have failed, and none has for good: the run that is about to be retried
-- begins new ones. Of a run that was undoing what it did, only those of undos: it goes on with these. Of a dead one, none:
-- it had gone past what had failed for good, and must find its way again to what it did after that.
update run_steps s
set state = 'failed', final = false,
    error = case when s.state = 'started' then $2 else s.error end, finished_at = coalesce(s.finished_at, $3)
from runs r
where r.run_id = $1 and s.run_id = $1
  and (s.state = 'started' or s.final and (s.step < 0 or r.compensating is null and r.state <> 'dead'));

-- name: places
-- The rate limits in whose lines a run stands, and at which of its steps; not those of undos, which will be performed.
select key, step from waits
where tenant_id = app.tenant() and run_id = $1 and cause = 'rate' and key is not null and step > 0;

-- name: redo_undone
-- Steps that were undone are done again, and their undos too when it comes to that; unless it is still undoing.
update run_steps s set aside = true
from runs r
where r.run_id = $1 and s.run_id = $1 and r.compensating is null and s.state = 'done' and not s.aside
  and exists (select from run_steps u
              where u.run_id = $1 and u.step = -abs(s.step) and u.step < 0 and u.state = 'done' and not u.aside);
