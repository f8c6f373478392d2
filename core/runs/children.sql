-- Child runs. The story is in core/db/migrations/0019_children.sql.

-- name: place
-- How many runs are above this one, and how far its step that spawns is; no record of it: attempt is 0.
select cardinality(r.ancestors) as above, coalesce(s.attempt, 0) as attempt, s.state, s.result,
       coalesce(s.aside, false) as aside
from runs r left join lateral (
    select s.attempt, s.state, s.result, s.aside from run_steps s
    where s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.step = $2 order by s.attempt desc limit 1
) s on true
where r.tenant_id = app.tenant() and r.run_id = $1;

-- name: spawned
-- How far a step that is spawning is.
update run_steps set result = $4
where tenant_id = app.tenant() and run_id = $1 and step = $2 and attempt = $3 and state = 'started';

-- name: brood
-- The children of a step, in order, as far as they are spawned, below a number.
select b.run_id from app.brood($1, $2) b where b.number < $3 order by b.number;

-- name: stands
-- Of the children of a step, how many have not ended, and whether one with a key that begins so ended other than
-- succeeded.
select (select count(*) from runs c
        where c.tenant_id = app.tenant() and c.parent_run_id = $1 and c.parent_step = $2
          and c.state in ('queued', 'running', 'waiting')) as open,
       exists (select from runs c
               where c.tenant_id = app.tenant() and c.parent_run_id = $1 and c.parent_step = $2
                 and c.state in ('failed', 'cancelled', 'dead') and starts_with(c.idempotency_key, $3)) as failed;

-- name: awaits
-- Whether a child that a step of a run spawned has not ended.
select app.awaits_children(app.tenant(), $1, $2);

-- name: ends
-- How runs stand, in the order in which they are asked for.
select r.run_id, r.workflow, r.state, r.output, r.error
from unnest($1::text[]) with ordinality as asked (run_id, position)
join runs r on r.tenant_id = app.tenant() and r.run_id = asked.run_id
order by asked.position;

-- name: undone
-- Children, of these, that ended other than succeeded before their parent was retried.
select c.run_id from runs c
where c.tenant_id = app.tenant() and c.run_id = any($2) and c.parent_run_id = $1 and c.state <> 'succeeded'
  and c.finished_at <= (select max(e.at) from run_events e where e.run_id = $1 and e.kind = 'retried')
order by c.run_id;

-- name: parent_state
-- Where a run stands: 'queued' when its last child has just woken it.
select state from runs where tenant_id = app.tenant() and run_id = $1;

-- name: tell_parent
-- Of several children that a parent waits for, how many have ended; no row when it does not wait for several.
with spawning as (
    select coalesce((s.result ->> 'of')::integer, jsonb_array_length(s.result)) as total,
           coalesce((s.result ->> 'next')::integer, jsonb_array_length(s.result)) as spawned
    from run_steps s where s.tenant_id = app.tenant() and s.run_id = $1 and s.step = $2 order by s.attempt desc limit 1
), siblings as (
    select n.total, n.spawned - count(c.run_id) as done
    from spawning n left join runs c on c.tenant_id = app.tenant() and c.parent_run_id = $1 and c.parent_step = $2
                                    and c.state in ('queued', 'running', 'waiting')
    group by n.total, n.spawned
)
update runs p set progress = jsonb_build_object('done', s.done, 'total', s.total, 'note', p.progress ->> 'note')
from siblings s
where p.tenant_id = app.tenant() and p.run_id = $1 and p.state = 'waiting' and p.cause = 'children' and s.total > 1
returning p.progress, p.batch_id, p.thread_id;

-- name: orphans
-- Runs of the tenant whose open children are to be cancelled.
select run_id from orphans where tenant_id = app.tenant() order by run_id limit $1;

-- name: cancel_orphans
-- Cancel some open children of a run that did not succeed: where they stand from then on, null: somebody else came first,
-- and how many questions that closed; no row when none is left.
select run_id, state, closed from app.cancel_orphans($1, $2, $3);

-- name: orphaned
-- Tenants in which a crash left children that are to be cancelled.
select tenant_id from app.orphaned();
