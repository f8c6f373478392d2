-- What a forked run is given of the run it comes from: the records of its first steps.

-- name: source_steps
-- How many steps a run of the tenant has come to; no row when there is no such run.
select (select coalesce(max(s.step), 0) from run_steps s where s.run_id = r.run_id) from runs r
where r.tenant_id = app.tenant() and r.run_id = $1;

-- name: copy_steps
-- What the steps before $3 of run $1 ended with, for run $2: at no cost, since they were paid for there, and nothing to
-- undo, since it was not this run that did it. A step that spawned only if all its children ended well, or the run went
-- on after one that did not.
insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, result, error, final, model, started_at,
                       finished_at)
select app.tenant(), $2, s.step, 1, s.name, s.kind, s.state, s.result, s.error, s.final, s.model, $4, $4
from (select distinct on (step) * from run_steps
      where tenant_id = app.tenant() and run_id = $1 and step > 0 and step < $3
        and (state in ('done', 'skipped') or final) and not aside
      order by step, attempt desc) s
where s.kind <> 'spawn' or s.final and s.result is null
   or not s.final and not exists (select from app.brood($1, s.step) b join runs c on c.run_id = b.run_id
                                  where c.tenant_id = app.tenant() and c.state <> 'succeeded')
   or exists (select from run_steps f
              where f.tenant_id = app.tenant() and f.run_id = $1 and f.step < $3 and f.kind = 'children' and f.final
                and not f.aside and (s.result ? (f.error #>> '{details,run_id}')
                                     or s.error #>> '{details,run_id}' = f.error #>> '{details,run_id}'));

-- name: copy_children
-- Of the steps before $3 that spawned and were not copied, the children that ended well: run $2 spawns only the others.
insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, result, started_at)
select app.tenant(), $2, s.step, 1, s.name, s.kind, 'started',
       jsonb_build_object('key', s.step || '/1', 'next', 0, 'of', s.total, 'kept', well.kept), $4
from (select distinct on (step) step, name, kind,
             coalesce((result ->> 'of')::integer, jsonb_array_length(result)) as total
      from run_steps
      where tenant_id = app.tenant() and run_id = $1 and step > 0 and step < $3 and kind = 'spawn' and not aside
      order by step, attempt desc) s
cross join lateral (
    select jsonb_object_agg(b.number, b.run_id) as kept
    from app.brood($1, s.step) b join runs c on c.run_id = b.run_id
    where c.tenant_id = app.tenant() and c.state = 'succeeded'
) well
where well.kept is not null and not exists (select from run_steps g where g.run_id = $2 and g.step = s.step);

-- name: decided_otherwise
-- The first step that people decided in run $1 and that run $2, which has another input, was given; null: there is none.
select min(v.step) from reviews v
join runs r on r.tenant_id = v.tenant_id and r.run_id = $1
join runs f on f.tenant_id = v.tenant_id and f.run_id = $2
where v.tenant_id = app.tenant() and v.run_id = $2 and v.state = 'decided' and f.input <> r.input;

-- name: copy_patches
-- Which way run $1 went at each change of its code that lies before these steps: they were done on that way.
insert into run_patches (tenant_id, run_id, name, after_step, taken)
select app.tenant(), $2, p.name, p.after_step, p.taken from run_patches p
where p.tenant_id = app.tenant() and p.run_id = $1 and p.after_step < $3 - 1;

-- name: copy_reviews
-- What people answered to the questions among these steps: a step that asks looks for its review.
insert into reviews
select (jsonb_populate_record(v, jsonb_build_object('run_id', $2::text, 'review_id',
            'rev_' || left(encode(sha256(convert_to($2::text || '/' || v.step, 'UTF8')), 'hex'), 26)))).*
from reviews v
where v.tenant_id = app.tenant() and v.run_id = $1 and v.step < $3 and v.state in ('decided', 'expired')
  and exists (select from run_steps s where s.run_id = $2 and s.step = v.step and s.kind = 'review');
