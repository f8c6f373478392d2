-- name: ours
-- How many runs have ended well, when the first of them was claimed and the last one ended.
select count(*) as ended, extract(epoch from min(started_at))::float8 as first,
       extract(epoch from max(finished_at))::float8 as last
from runs where state = 'succeeded' and submitted_at >= to_timestamp($1);

-- name: plain
-- The same of the peer.
select count(*) as ended, min(started_at_epoch_ms) / 1000.0::float8 as first, max(completed_at) / 1000.0::float8 as last
from dbos.workflow_status
where status = 'SUCCESS' and name = 'floor' and created_at >= 1000 * $1::float8;

-- name: outputs
-- What the runs $1 returned, in that order, as far as they have ended well.
select r.output from unnest($1::text[]) with ordinality as w(run_id, position)
join runs r on r.run_id = w.run_id and r.state = 'succeeded' order by w.position;

-- name: parked
-- How many of the runs $1 are parked.
select count(*) from runs where run_id = any($1::text[]) and state = 'waiting';

-- name: timers
-- When the waits of the runs $1 are over by themselves, in that order.
select extract(epoch from t.wake_at)::float8 as wake_at from unnest($1::text[]) with ordinality as w(run_id, position)
join waits t on t.run_id = w.run_id order by w.position;

-- name: in_tenant
-- From here on the transaction is this tenant's ($1); '': nobody's.
select set_config('app.tenant', $1, true);

-- name: begin_waits
-- What a worker writes before it parks, for all that worker $1 holds of tenant $2, at $3: the attempt of the first step,
-- and the wait, that is over at $4: for the event "go" by the run's number, or for that time ($5: event, timer).
with held as (
    select r.run_id, r.tenant_id, r.input ->> 'number' as number from slots s join runs r on r.run_id = s.run_id
    where s.worker_id = $1 and s.tenant_id = $2
), begun as (
    insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, started_at)
    select tenant_id, run_id, 1, 1, 'event: go', $5, 'started', $3 from held
)
insert into waits (run_id, step, tenant_id, cause, key, wake_at, since)
select run_id, 1, tenant_id, $5, case $5 when 'event' then 'go/' || number end, $4, $3 from held;

-- name: release_held
-- Up to $4 slots that worker $1 holds of tenant $2 are given back, at $3; whose they were.
select coalesce(array_agg(h.run_id), '{}')
from (select s.run_id, r.attempt from slots s join runs r on r.run_id = s.run_id
      where s.worker_id = $1 and s.tenant_id = $2 limit $4) h
where app.release(h.run_id, h.attempt, $3) is not null;

-- name: park_released
-- What a worker writes when it parks, for the runs $1, at $2: each waits ($3: event, timer), and its event log tells.
with parked as (
    update runs r set state = 'waiting', cause = $3, event_seq = r.event_seq + 1
    where r.run_id = any($1::text[]) returning r.tenant_id, r.run_id, r.event_seq
)
insert into run_events (tenant_id, run_id, seq, at, kind, data)
select tenant_id, run_id, event_seq, $2, 'waiting', jsonb_build_object('cause', $3::text, 'step', 1) from parked;

-- name: statistics
-- What autovacuum would find out within a minute of the load.
vacuum analyze;

-- name: asleep
-- Whether $1 workflows of the peer sleep: each has recorded until when.
select count(*) >= $1::integer from dbos.operation_outputs o join dbos.workflow_status s using (workflow_uuid)
where s.name = 'parked';
