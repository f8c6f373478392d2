-- What must hold when every run has ended. Each block finds the exceptions: there are none, ever.

-- name: stuck
-- Runs that have not ended.
select r.run_id || ' is ' || r.state || coalesce(' for ' || r.cause, '') || ' since claim ' || r.attempt as fault
from runs r where r.state in ('queued', 'running', 'waiting');

-- name: left_over
-- What an ended run leaves behind: a place in the queue, a slot, a wait, a question, money promised, an open attempt.
select 'queue: ' || run_id as fault from queue_entries
union all select 'slot: ' || run_id from slots
union all select 'wait: ' || run_id || '/' || step from waits
union all select 'review: ' || review_id from reviews where state = 'open'
union all select 'reservation: ' || key from reservations
union all
select 'attempt: ' || s.run_id || '/' || s.step || '/' || s.attempt
from run_steps s join runs r on r.run_id = s.run_id
where r.state = 'succeeded' and s.state <> 'done'
  and not exists (select from run_steps d where d.run_id = s.run_id and d.step = s.step and d.attempt > s.attempt)
union all
select 'worker: ' || worker_id || ' holds ' || held from workers where held <> 0;

-- name: done_twice
-- Steps that were done more than once, were tried again after they were done, or changed their name; what was set aside
-- because it was undone, or is to be done again, does not count.
select run_id || '/' || step || ': ' || count(*) || ' times' as fault
from run_steps where state = 'done' and not aside group by run_id, step having count(*) > 1
union all
select d.run_id || '/' || d.step || ' was begun again after it was done'
from run_steps d join run_steps l on l.run_id = d.run_id and l.step = d.step and l.attempt > d.attempt
where d.state = 'done' and not d.aside
union all
select run_id || '/' || step || ' has several names' from run_steps group by run_id, step
having count(distinct name) > 1;

-- name: queue_faults
-- Where the counts that the fair queue decides by are wrong.
select place || ': ' || fault as fault from app.queue_faults();

-- name: event_gaps
-- Event logs with a gap, or a number that the run does not know.
select r.run_id || ': ' || count(e.seq) || ' events up to ' || coalesce(max(e.seq), 0) || ', counted ' || r.event_seq
       as fault
from runs r left join run_events e on e.run_id = r.run_id
group by r.run_id, r.event_seq
having count(e.seq) <> r.event_seq or coalesce(max(e.seq), 0) <> r.event_seq or coalesce(min(e.seq), 1) <> 1;

-- name: ends
-- Runs that were told to have ended more or less often than they ended: once, and once more for each retry.
select r.run_id || ': ' || count(*) filter (where e.kind in ('succeeded', 'failed', 'cancelled', 'dead')) || ' ends, '
       || count(*) filter (where e.kind = 'retried') || ' retries' as fault
from runs r join run_events e on e.run_id = r.run_id
group by r.run_id
having count(*) filter (where e.kind in ('succeeded', 'failed', 'cancelled', 'dead'))
    <> 1 + count(*) filter (where e.kind = 'retried');

-- name: step_events
-- Steps whose end was told more or less often than it is recorded.
select s.run_id || '/' || s.step || ' (' || s.name || '): ' || count(*) as fault
from run_steps s
where s.state = 'done' and s.kind not in ('review', 'budget')
group by s.run_id, s.step, s.name
having count(*) <> (select count(*) from run_events e
                    where e.run_id = s.run_id and e.kind = 'step_done' and (e.data ->> 'step')::integer = s.step);

-- name: settled
-- Money that was promised and not settled, settled otherwise than the attempt cost, or belongs to no attempt.
select 'never settled: ' || l.key as fault from ledger l
where l.kind = 'reserve'
  and not exists (select from ledger s where s.tenant_id = l.tenant_id and s.key = l.key and s.kind = 'settle')
union all  -- model calls of the platform's own rooms, memory here, pay for themselves
select 'of no attempt: ' || l.key from ledger l
where l.run_id is not null and l.key not like 'model\_%' and not exists (
    select from run_steps s where s.run_id = l.run_id and l.key = s.run_id || '/' || s.step || '/' || s.attempt)
union all
select l.key || ': settled ' || l.amount_microusd || ', cost ' || s.cost_microusd
from run_steps s
join ledger l on l.kind = 'settle' and l.key = s.run_id || '/' || s.step || '/' || s.attempt
where l.amount_microusd <> s.cost_microusd
union all
select s.run_id || '/' || s.step || '/' || s.attempt || ': cost ' || s.cost_microusd || ', never settled'
from run_steps s
where s.cost_microusd > 0 and not exists (
    select from ledger l where l.kind = 'settle' and l.key = s.run_id || '/' || s.step || '/' || s.attempt);

-- name: charged_twice
-- Steps with a fixed price ($1, in micro-USD) that were charged otherwise than once for each time they were done.
select s.run_id || '/' || s.step || ' (' || s.name || '): ' || sum(l.amount_microusd) as fault
from run_steps s
join ledger l on l.kind = 'settle' and l.key = s.run_id || '/' || s.step || '/' || s.attempt
where s.kind in ('step', 'call', 'undo')
group by s.run_id, s.step, s.name
having sum(l.amount_microusd) <> $1::bigint * count(*) filter (where s.state = 'done');

-- name: accounts
-- Accounts whose sums are not those of the ledger.
select b.account || ': reserved ' || b.reserved_microusd || ', spent ' || b.spent_microusd || ' of '
       || coalesce(l.spent, 0) as fault
from budget_accounts b
left join lateral (
    select sum(l.amount_microusd)::bigint as spent from ledger l
    where l.tenant_id = b.tenant_id and l.kind = 'settle'
      and (b.account = 'month:' || l.month or b.account = any(
               select 'run:' || a from runs r cross join unnest(r.ancestors || r.run_id) a where r.run_id = l.run_id))
) l on true
where b.reserved_microusd <> 0 or b.spent_microusd <> coalesce(l.spent, 0) or b.spent_microusd > b.limit_microusd;

-- name: served
-- Tenants that were charged other worker-seconds than their runs used, and runs likewise; a millisecond is rounding.
select q.tenant_id || ': charged ' || q.used_s || ' s, used ' || coalesce(u.used_s, 0) as fault
from queue_tenants q
left join lateral (select sum(extract(epoch from s.released_at - s.claimed_at)) as used_s
                   from slot_uses s where s.tenant_id = q.tenant_id and s.worker_id is not null) u on true
where abs(q.used_s - coalesce(u.used_s, 0)) > 0.001 * (1 + (select count(*) from slot_uses))
union all
select r.run_id || ': claimed ' || r.attempt || ' times, gave back ' || count(u.run_id)
from runs r left join slot_uses u on u.run_id = r.run_id and u.worker_id is not null  -- null: it was cancelled in the queue
group by r.run_id, r.attempt having count(u.run_id) <> r.attempt;

-- name: admitted
-- Days that count other runs than were admitted.
select d.tenant_id || ': ' || sum(d.runs) || ' counted, ' || (
           select count(*) from runs r where r.tenant_id = d.tenant_id) || ' there' as fault
from run_days d group by d.tenant_id
having sum(d.runs) <> (select count(*) from runs r where r.tenant_id = d.tenant_id);

-- name: decided
-- Decisions that are not in the audit exactly once, or were taken by other than one voice.
select r.review_id || ': ' || jsonb_array_length(r.votes) || ' votes, ' || count(a.entry_id) || ' acts' as fault
from reviews r
left join audit a on a.tenant_id = r.tenant_id and a.subject = 'review:' || r.review_id and a.act = 'review.decide'
where r.state = 'decided'
group by r.review_id having count(a.entry_id) <> 1 or jsonb_array_length(r.votes) <> 1;

-- name: undone
-- Steps that can be undone ($1: their names) of runs that ended badly and were not undone, once; undos of runs that
-- succeeded.
select s.run_id || '/' || s.step || ' (' || s.name || ') of a run that is ' || r.state as fault
from run_steps s join runs r on r.run_id = s.run_id
where r.state in ('failed', 'cancelled', 'dead') and r.workflow = 'chaos' and s.state = 'done' and not s.aside
  and s.name = any($1::text[])
  and 1 <> (select count(*) from run_steps u
            where u.run_id = s.run_id and u.step = -s.step and u.kind = 'undo' and u.state = 'done' and not u.aside)
union all
select u.run_id || '/' || u.step || ' (' || u.name || ') of a run that succeeded'
from run_steps u join runs r on r.run_id = u.run_id
where r.state = 'succeeded' and u.kind = 'undo' and u.state = 'done' and not u.aside;

-- name: families
-- Steps that spawned a child twice, children of a run that succeeded which did not, and any that outlived their parent.
select c.parent_run_id || '/' || c.parent_step || ': ' || (c.input ->> 'what') || ', ' || count(*) || ' times' as fault
from runs c where c.parent_run_id is not null
group by c.parent_run_id, c.parent_step, c.input ->> 'what' having count(*) > 1
union all
select c.run_id || ' ended ' || c.state || ', its parent ' || p.state
from runs c join runs p on p.run_id = c.parent_run_id
where p.state = 'succeeded' and c.state <> 'succeeded' or c.state not in ('succeeded', 'cancelled')
union all select 'orphans of ' || run_id from orphans;

-- name: remembered
-- Memories that the graph has yet to follow, and steps that taught other than one.
select 'outbox: ' || memory_id as fault from memory_outbox
union all
select text || ': ' || count(*) || ' memories' from memories where valid_to is null group by text having count(*) > 1;
