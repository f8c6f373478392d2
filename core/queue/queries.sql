-- The fair queue's verbs are functions of the database: core/db/migrations/0003_queue.sql tells the whole story,
-- 0010_queue_verbs.sql and 0013_queue_workers.sql hold the verbs. How a claim chooses, in short: among tenants that
-- have something queued, are below their cap and are not paused, the one with the least virtual time; inside it the
-- lowest lane, and there the user with the least virtual time, oldest run first. Virtual time grows by
-- worker-seconds / weight, so in the long run every backlogged tenant gets seconds in proportion to its weight,
-- whatever its runs' number or length. Nobody is starved: every tenth run of a tenant is its oldest.

-- name: push
-- Queue runs in state 'queued'; $2 true: at the head of their lanes.
select app.queue_push($1, $2, $3);

-- name: claim
-- Up to $2 runs for a worker; a last row without a run says when to claim again, and whether others are to be woken.
select run_id, tenant_id, user_id, workflow, version, input, attempt, thread_id, batch_id,
       budget_microusd, submitted_at, burst, again_at, others
from app.claim($1, $2, $3, $4);

-- name: release
-- Give the slot back; the seconds used, null when it is not this claim's any more.
select app.release($1, $2, $3);

-- name: wake
-- A wait is over.
select app.wake($1, $2, $3);

-- name: wake_due
-- All waits whose time has come.
select tenant_id, run_id, cause from app.wake_due($1, $2);

-- name: next_wake
-- When the next wait is over by itself.
select app.next_wake();

-- name: cancel
-- Cancel a run; the state it was in, the one from then on, and how many questions that closed.
select was, state, closed from app.queue_cancel($1, $2);

-- name: heartbeat
-- A worker lives; the slots it holds.
select app.worker_heartbeat($1, $2, $3, $4, $5);

-- name: leave
-- A worker that holds nothing goes away; false when it does hold something.
select app.worker_leave($1, $2);

-- name: recover
-- Queue the runs of dead workers again, and those that a worker does not know of.
select tenant_id, run_id, worker_id, state, closed from app.recover($1, $2, $3, $4);

-- name: give_back
-- A worker gives back a run whose execution broke, or could not go on.
select tenant_id, worker_id, state, closed from app.give_back($1, $2, $3, $4);

-- name: live
-- Slots of workers heard of since $1, or since $2 if they hold nothing, and the code of these workers.
select app.live_slots($1, $2) as slots, app.live_codes($1, $2) as codes;

-- name: depth
-- Runs queued on the whole platform.
select app.queue_depth();

-- name: cancelled_here
-- Runs that a worker executes and somebody wants to stop.
select run_id from app.cancelled_here($1);

-- name: forget_uses
-- Forget uses of slots from before a moment, some at a time.
select app.slot_uses_purge($1, $2);

-- name: forget_flows
-- Forget what no longer matters of users who have nothing queued, some at a time.
select app.queue_flows_purge($1);

-- name: forget_gaps
-- Forget when nobody had some code, from before a moment, some at a time.
select app.code_gaps_purge($1, $2);

-- name: platform_cap
-- Set the most slots that may be held on the whole platform; what it was.
select app.queue_platform_cap($1);

-- name: faults
-- Where the counts by which the queue decides differ from what is there.
select place, fault from app.queue_faults();

-- name: longest_silent
-- When the worker that has been silent for the longest was heard of last.
select app.longest_silent();

-- name: anything_moves
-- Whether a run is queued or executes.
select app.anything_moves();

-- name: place
-- Where a queued run of the transaction's tenant stands; no row when it is not queued.
select * from app.queue_place($1, $2);

-- name: op_place
-- The same of any tenant, for operators.
select * from app.op_queue_place($1, $2);

-- name: shared_slots
-- Slots that tenants share out: workers that live, the platform's cap, the headroom.
select app.shared_slots($1, $2, $3);

-- name: fair_level
-- What a tenant of weight 1 gets of so many slots; null: there is enough for all.
select app.fair_level($1);

-- name: tenant_starts
-- Runs of the transaction's tenant that left the queue since a moment.
select app.tenant_starts($1);

-- name: platform_starts
-- Runs of all tenants that left the queue since a moment.
select app.platform_starts($1);
