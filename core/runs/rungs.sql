-- What the degradation ladder does to a run (core/usage/ladder.py).

-- name: skip_step
-- A step that is not performed: recorded as skipped, once; no row when the run is somebody else's.
with run as (
    update runs set event_seq = event_seq + 1
    where tenant_id = app.tenant() and run_id = $1 and attempt = $2 and state = 'running'
    returning event_seq
), told as (
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    select app.tenant(), $1, event_seq, $6, 'step_skipped', jsonb_build_object('step', $3::integer, 'name', $4::text)
    from run
), skipped as (
    insert into run_steps (tenant_id, run_id, step, attempt, name, kind, state, started_at, finished_at)
    select app.tenant(), $1, $3, 1 + coalesce((select max(s.attempt) from run_steps s where s.run_id = $1 and s.step = $3), 0),
           $4, $5, 'skipped', $6, $6
    from run
)
select event_seq from run;

-- name: agreed
-- About which accounts people were asked in this run and said to go on.
select distinct data ->> 'account' as account from run_events where run_id = $1 and kind = 'budget_raised';
