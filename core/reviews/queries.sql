-- name: request
-- Ask for a decision; asking again for the same run and step changes nothing, unless it was closed undecided.
insert into reviews (review_id, tenant_id, run_id, step, pool, title, evidence, choices, state, created_at, due_at)
values ($1, app.tenant(), $2, $3, $4, $5, $6, $7, 'open', $8, $9)
on conflict (run_id, step) do update
    set state = 'open', title = excluded.title, evidence = excluded.evidence, choices = excluded.choices,
        created_at = excluded.created_at, due_at = excluded.due_at, decided_at = null
    where reviews.state = 'cancelled'
returning review_id;

-- name: by_step
-- The review a run asked for at a step.
select state, verdict, comment, decided_by from reviews where run_id = $1 and step = $2 for update;

-- name: open
-- Open reviews, the most urgent first.
select v.review_id, v.run_id, v.pool, v.title, v.evidence, v.choices, v.state, v.verdict, v.comment, v.decided_by,
       v.created_at, v.due_at, v.decided_at, r.thread_id
from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and v.state = 'open'
order by v.due_at, v.review_id limit $1;

-- name: recent
-- Reviews of any state, newest first.
select v.review_id, v.run_id, v.pool, v.title, v.evidence, v.choices, v.state, v.verdict, v.comment, v.decided_by,
       v.created_at, v.due_at, v.decided_at, r.thread_id
from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant()
order by v.created_at desc, v.review_id limit $1;

-- name: by_id
-- One review.
select v.review_id, v.run_id, v.pool, v.title, v.evidence, v.choices, v.state, v.verdict, v.comment, v.decided_by,
       v.created_at, v.due_at, v.decided_at, r.thread_id
from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and v.review_id = $1;

-- name: submitter
-- Who submitted the run that asks, and the step at which it waits.
select r.user_id, v.step, r.state as run_state from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and v.review_id = $1;

-- name: decide
-- The first decision wins: only an open review takes one.
update reviews set state = 'decided', verdict = $2, comment = $3, decided_by = $4, decided_at = $5
where tenant_id = app.tenant() and review_id = $1 and state = 'open';

-- name: cancel_of_run
-- The run ended without needing the answer.
update reviews set state = 'cancelled', decided_at = $2
where tenant_id = app.tenant() and run_id = $1 and state = 'open';
