-- name: ended
-- The run of every job: how it ended, what it returned.
select r.run_id, r.state, r.outcome, r.output, (r.input ->> 'number')::integer as number,
       r.idempotency_key is not null as keyed, r.attempt
from runs r where r.workflow = 'chaos' order by number;

-- name: attempts
-- Every step that has an effect outside: the key it was given, attempts, and when it was recorded as done.
select run_id || '/' || step as key, count(*) as attempts, extract(epoch from max(finished_at) filter (where state = 'done'))::float8
       as done_at
from run_steps where kind in ('step', 'call', 'undo') group by run_id, step;

-- name: measured
-- How much there was to go wrong.
select (select count(*) from runs) as runs, (select count(*) from runs where parent_run_id is not null) as children,
       (select sum(attempt) from runs)::bigint as claims,
       (select count(*) from run_steps)::bigint as attempts,
       (select count(*) from run_steps where state = 'started' )::bigint as cut_off,
       (select count(*) from run_events)::bigint as events,
       (select count(*) from ledger)::bigint as entries,
       (select count(*) from run_events where kind = 'waiting')::bigint as parkings,
       (select count(*) from workers)::bigint as workers;
