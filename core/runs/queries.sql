-- name: insert_runs
-- Runs in state 'queued', each with its first event, in one statement. A run whose idempotency key is taken
-- is left out. Arrays $1..$10, $14, $15, $17 to $19 have one element per run. A run that is forked from another counts that
-- one as its first time in a slot: so whoever executes it looks for what is recorded. A parent is looked up ("offset 0"),
-- not joined: the planner would read all of the tenant's runs for it. "(select $1)" hides from the planner how many there
-- are: it makes one plan for a session, instead of one for each submission, which takes longer than the rest.
with fresh as (
    insert into runs (run_id, tenant_id, user_id, workflow, version, lane, state, source, batch_id, thread_id,
                      parent_run_id, parent_step, ancestors, idempotency_key, request_hash, input, policy_version,
                      budget_microusd, event_seq, submitted_at, queued_at, forked_from, attempt,
                      timeout_s)
    select n.run_id, app.tenant(), $11, n.workflow, n.version, n.lane, 'queued', n.source, n.batch_id, n.thread_id,
           n.parent_run_id, n.parent_step, case when p.run_id is null then '{}' else p.ancestors || p.run_id end,
           n.idempotency_key, n.request_hash, n.input, $12, n.budget_microusd, 1, $13, $13,
           n.forked_from, (n.forked_from is not null)::integer, n.timeout_s
    from unnest((select $1::text[]), (select $2::text[]), (select $3::text[]), (select $4::smallint[]),
                (select $5::text[]), (select $6::text[]), (select $7::text[]), (select $8::text[]),
                (select $9::text[]), (select $10::bytea[]), (select $14::jsonb[]), (select $15::bigint[]),
                (select $17::integer[]), (select $18::text[]), (select $19::double precision[]))
         as n (run_id, workflow, version, lane, source, batch_id, thread_id, parent_run_id, idempotency_key,
               request_hash, input, budget_microusd, parent_step, forked_from, timeout_s)
    left join lateral (select * from runs r
                       where r.tenant_id = app.tenant() and r.run_id = n.parent_run_id offset 0) p on true
    on conflict (tenant_id, idempotency_key) where idempotency_key is not null do nothing
    returning run_id, source, lane, forked_from
), told as (
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    select app.tenant(), run_id, 1, $13, 'submitted',
           jsonb_strip_nulls(jsonb_build_object('source', source, 'lane', lane, 'actor', $16::text,
                                                'forked_from', forked_from))
    from fresh
)
select run_id from fresh;

-- name: by_idempotency_keys
-- Runs submitted before under these keys.
select run_id, idempotency_key, request_hash from runs
where tenant_id = app.tenant() and idempotency_key = any($1);

-- name: versions_by_key
-- The versions of runs submitted before under these keys.
select idempotency_key, version from runs where tenant_id = app.tenant() and idempotency_key = any($1);

-- name: admitted
-- Count runs admitted on a local day; the row serialises submissions, so the quota is exact. And how the tenant stands in
-- the queue then; what enters it is looked at anew, whatever blocked what was there.
select admitted, queued, running, cap, paused, draining, false as blocked,
       array(select w.workflow from queue_workflows w where w.tenant_id = app.tenant() and w.running >= w.cap) as full
from app.run_admitted($1, $2);

-- name: queue_row
-- How the tenant stands in the queue: why its queued runs wait follows from it.
select queued, running, cap, paused, draining, blocked,
       array(select w.workflow from queue_workflows w where w.tenant_id = app.tenant() and w.running >= w.cap) as full
from queue_tenants where tenant_id = app.tenant();

-- name: open_runs
-- Runs of the tenant that have not ended, counted up to $1.
select count(*) from (
    select from runs where tenant_id = app.tenant() and state in ('queued', 'running', 'waiting') limit $1
) counted;

-- name: ended_since
-- Runs of the tenant that ended since a moment.
select count(*) from runs where tenant_id = app.tenant() and finished_at > $1;

-- name: views
-- Runs, newest first, after a cursor (submitted_at, run_id). Every filter is optional.
select r.run_id, r.workflow, r.version, r.lane, r.state, r.cause, r.source, r.batch_id, r.thread_id, r.user_id,
       r.input, r.output, r.outcome, r.error, r.progress, r.attempt - (r.forked_from is not null)::integer as attempt,
       r.worker_seconds, r.budget_microusd,
       r.submitted_at, r.started_at, r.finished_at, r.held, r.forked_from, r.parent_run_id,
       r.compensating is not null and r.finished_at is null as undoing,
       coalesce(b.spent_microusd, 0) as cost_microusd
from runs r
left join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || r.run_id
where r.tenant_id = app.tenant()
  and ($1::text is null or r.state = $1)
  and ($2::text is null or r.workflow = $2)
  and ($3::text is null or r.batch_id = $3)
  and ($4::text is null or r.outcome = $4)
  and ($8::text is null or r.parent_run_id = $8)
  and ($5::timestamptz is null or (r.submitted_at, r.run_id) < ($5, $6::text))
order by r.submitted_at desc, r.run_id desc
limit $7;

-- name: views_by_id
-- These runs.
select r.run_id, r.workflow, r.version, r.lane, r.state, r.cause, r.source, r.batch_id, r.thread_id, r.user_id,
       r.input, r.output, r.outcome, r.error, r.progress, r.attempt - (r.forked_from is not null)::integer as attempt,
       r.worker_seconds, r.budget_microusd,
       r.submitted_at, r.started_at, r.finished_at, r.held, r.forked_from, r.parent_run_id,
       r.compensating is not null and r.finished_at is null as undoing,
       coalesce(b.spent_microusd, 0) as cost_microusd
from runs r
left join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || r.run_id
where r.tenant_id = app.tenant() and r.run_id = any($1)
order by r.submitted_at desc, r.run_id desc;

-- name: steps
-- Every attempt of every step of a run.
select step, attempt, name, kind, case when aside then 'set aside' else state end as state, cost_microusd, model,
       started_at, finished_at, error
from run_steps where run_id = $1 order by step, attempt;

-- name: passages
-- Every time a run was in the queue and in a slot, with the causes of its waits for one.
select queued_at, claimed_at, released_at, burst, capped_s, paused_s, no_worker_s, no_code_s
from app.passage_rows($1, $2);

-- name: parkings
-- When a run was parked, and what for, and when it ended; oldest first.
select at, kind, data ->> 'cause' as cause from run_events
where run_id = $1 and kind in ('waiting', 'succeeded', 'failed', 'cancelled', 'dead') order by seq;

-- name: append_event
-- The next event of a run; its number comes from the run's row, so there are no gaps and no races.
with counted as (
    update runs set event_seq = event_seq + 1 where run_id = $1 and tenant_id = app.tenant() returning event_seq
)
insert into run_events (tenant_id, run_id, seq, at, kind, data)
select app.tenant(), $1, event_seq, $2, $3, $4 from counted;

-- name: batch_counts
-- How far a batch is: one row per state, cause, outcome and version.
select r.state, r.cause, r.outcome, r.workflow, r.version, count(*) as runs, coalesce(sum(b.spent_microusd), 0)::bigint as cost_microusd
from runs r
left join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || r.run_id
where r.tenant_id = app.tenant() and r.batch_id = $1
group by r.state, r.cause, r.outcome, r.workflow, r.version;

-- name: declined_reasons
-- How often each reason was given for a refusal, over all runs or one batch.
select reason, count(*) as runs
from runs r, jsonb_array_elements_text(
    case jsonb_typeof(r.output -> 'reasons') when 'array' then r.output -> 'reasons' else '[]' end) as reason
where r.tenant_id = app.tenant() and r.state = 'succeeded' and r.outcome = 'declined'
  and ($1::text is null or r.batch_id = $1)
group by reason order by runs desc, reason;

-- name: overlong
-- Parked runs of all tenants that have lasted too long.
select tenant_id, run_id, timeout_s from app.overlong($1, $2);

-- name: fail_cancelled
-- A run that this transaction has taken out of its wait ends as failed.
update runs set state = 'failed', error = $2 where tenant_id = app.tenant() and run_id = $1 and state = 'cancelled';

-- name: began
-- What an execution of a run that is not the first must know of those before.
select started_at, cancel_requested, compensating from runs where tenant_id = app.tenant() and run_id = $1;

-- name: finish
-- A final state, and its event.
select app.run_finish($1, $2, $3, $4, $5, $6);

-- name: end
-- The slot is given back and the run is in a final state; how many questions that closed, null: the slot is not this
-- claim's any more.
select app.run_end($1, $2, $3, $4, $5, $6, $7) as closed, r.parent_run_id, r.parent_step
from runs r where r.tenant_id = app.tenant() and r.run_id = $1;

-- name: lock_reviews
-- What a run asks, before the queue is locked: its end will close it.
select app.lock_reviews($1);

-- name: close_reviews
-- What a run asks is over; how many questions that were.
select app.close_reviews($1, $2);

-- name: parent
-- Which run spawned this one, at which of its steps.
select parent_run_id, parent_step from runs where tenant_id = app.tenant() and run_id = $1;

-- name: open_waits
-- What a run is about to park on; nothing when some of it was over before.
select step, cause, wake_at from waits
where run_id = $1 and not (select woken from runs where tenant_id = app.tenant() and run_id = $1) order by since, step;

-- name: park
-- The run waits; for what, from then on. One that somebody wants to stop does not wait, but before an undo. A held one
-- looks again what it waits for when it is resumed: the hold may have stopped a step beside the one that waits.
update runs set state = 'waiting', cause = case when held then 'paused' else $2 end, ready = held
where tenant_id = app.tenant() and run_id = $1 and state = 'running' and (not cancel_requested or compensating is not null)
returning cause;

-- name: requeue
-- The run goes on later: its wait was over before it had parked (woken), or its worker is to stop (handed_back). A held one
-- goes on when it is resumed. The state from then on.
select app.queue_again($1, 'running', $3, $2);

-- name: tell
-- What an executing run says, as its next events, and how far it is; nothing when it is somebody else's.
with run as (
    update runs set event_seq = event_seq + cardinality($4::text[]), progress = coalesce($6, progress)
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running'
    returning event_seq
)
insert into run_events (tenant_id, run_id, seq, at, kind, data)
select app.tenant(), $1, run.event_seq - cardinality($4::text[]) + said.position, $3, said.kind, said.data
from run, unnest($4::text[], $5::jsonb[]) with ordinality as said (kind, data, position);

-- name: recorded_step
-- How a step ended, if it did: it finished once, or failed for good.
select name, result, error, undo from run_steps
where run_id = $1 and step = $2 and (state in ('done', 'skipped') or final) and not aside
order by attempt desc limit 1;

-- name: newest_attempt
-- The newest attempt of a step; one that was set aside is as good as failed.
select attempt, case when aside then 'failed' else state end as state, result from run_steps where run_id = $1 and step = $2 order by attempt desc limit 1;

-- name: tries
-- Attempts of a step that failed since the run first had a slot (a retry of the run begins anew), but for these codes.
select count(*) from run_steps s join runs r on r.run_id = s.run_id
where r.tenant_id = app.tenant() and s.run_id = $1 and s.step = $2 and s.state = 'failed'
  and s.started_at >= r.started_at and coalesce(s.error ->> 'code', '') <> all ($3::text[]);

-- name: still_ours
-- One row, locked, while the run executes under this claim. Claim, release and recovery change that row first.
select held from runs
where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running' for no key update;

-- name: begin_step
-- The next attempt of a step and its event; no row when the run is somebody else's, no attempt when it is to stop: held
-- says whether it will go on. An undo (its number is below zero) begins all the same.
with run as (
    update runs set event_seq = event_seq + 1
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running'
    returning event_seq, cancel_requested, held
), begun as (
    insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, started_at, undo)
    select app.tenant(), $1, $3,
           1 + coalesce((select max(s.attempt) from run_steps s where s.run_id = $1 and s.step = $3), 0),
           $4, $5, 'started', $6, $7
    from run where $3 < 0 or not cancel_requested and not held
    returning attempt
), told as (
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    select app.tenant(), $1, event_seq, $6, 'step_started',
           jsonb_build_object('step', $3, 'attempt', begun.attempt, 'name', $4)
    from run, begun
)
select begun.attempt, run.held from run left join begun on true;

-- name: redone
-- How often a step that was done is done again.
select count(*) from run_steps where run_id = $1 and step = $2 and aside;

-- name: compensate
-- The run begins to undo what it did, on its way to an end, and is held no more. What else it waits for, beside the step
-- that failed, is over, and so is what it asked: nothing but undos wakes it. How many questions that closed; no row when
-- it has begun, has nothing to undo, or is somebody else's.
with run as (
    update runs set compensating = $3, held = false, event_seq = event_seq + 1
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running' and compensating is null
      and app.undoable($1)
    returning event_seq
), moot as (
    delete from waits w using run where w.run_id = $1
), told as (
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    select app.tenant(), $1, event_seq, $4, 'compensating', jsonb_build_object('end', $3::jsonb ->> 'end') from run
)
select app.close_reviews($1, $4) from run;

-- name: to_undo
-- What a run did and there is a way to undo, undone already or not.
select step, name from run_steps where run_id = $1 and undo and state = 'done' and not aside;

-- name: undoable
-- Whether there is something to undo.
select app.undoable($1);

-- name: begin_wait
-- The next attempt of a step that waits.
insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, started_at)
values (app.tenant(), $1, $2, $3, $4, $5, 'started', $6);

-- name: close_step
-- An open attempt ends, and its event; nothing when it is not open, or the run is somebody else's.
with run as (
    update runs set event_seq = event_seq + 1
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running'
      and exists (select from run_steps where run_id = $1 and step = $3 and attempt = $4 and state = 'started')
    returning event_seq
), told as (
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    select app.tenant(), $1, event_seq, $10, 'step_' || $5::text, $11 from run
)
update run_steps s
set state = $5, result = $6, error = $7, cost_microusd = $8, model = $9, finished_at = $10
from run where s.run_id = $1 and s.step = $3 and s.attempt = $4;

-- name: fail_for_good
-- The step is not tried again, in this execution or a later one: all will be told this error.
with run as (
    select from runs
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running' for no key update
)
insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, error, started_at, finished_at, final)
select app.tenant(), $1, $3,
       coalesce((select max(s.attempt) from run_steps s where s.run_id = $1 and s.step = $3), 1),
       $4, $5, 'failed', $6, $7, $7, true
from run
on conflict (run_id, step, attempt) do update
    set state = 'failed', error = excluded.error, final = true,
        finished_at = coalesce(run_steps.finished_at, excluded.finished_at);

-- name: arm_wait
-- What the run will park on. Armed before it parks, so that a wake-up in between is not lost.
insert into waits (run_id, step, tenant_id, cause, key, wake_at, since)
values ($1, $2, app.tenant(), $3, $4, $5, $6)
on conflict (run_id, step) do nothing;

-- name: wait_is_open
-- Whether a wait of a run is still armed.
select exists (select 1 from waits where run_id = $1 and step = $2);

-- name: disarm_wait
-- The wait is over without having been woken (its answer was there).
delete from waits where run_id = $1 and step = $2;

-- name: event_payload
-- An event that was sent, if it was.
select payload from events where tenant_id = app.tenant() and name = $1 and key = $2;

-- name: event_line
-- Whoever sends an event and whoever begins to wait for it do so one after the other, so that each sees the other.
select pg_advisory_xact_lock(7303, hashtext(app.tenant() || '/' || $1 || '/' || $2));

-- name: send_event
-- Keep an event; the first one under a name and key wins.
insert into events (tenant_id, name, key, payload, created_at) values (app.tenant(), $1, $2, $3, $4)
on conflict do nothing;

-- name: waits_on_key
-- Runs that wait for something under this key, those that wait for the longest first.
select run_id, step from waits where tenant_id = app.tenant() and cause = $1 and key = $2 order by since, run_id limit $3;

-- name: waits_over
-- Those that wait for something under this key have waited long enough: they are woken some at a time.
update waits set wake_at = $3 where tenant_id = app.tenant() and cause = $1 and key = $2;
