-- The end of a run, its own and that which somebody else wants.

-- A final state, and its event. What it still waits for is over (it may succeed though a step beside the one that waits
-- has failed), and so is what it asked people, which the caller has locked (app.lock_reviews). Only a running run reaches
-- it: how many questions that closed, null for any other. With the rights of its caller.
create function app.run_finish(p_run_id text, p_state text, p_output jsonb, p_outcome text, p_error jsonb,
                               p_now timestamptz)
returns integer language plpgsql as $$
declare number integer;
begin
    update runs r
    set state = p_state, cause = null, held = false, woken = false, output = p_output, outcome = p_outcome, error = p_error,
        finished_at = p_now,
        compensating = case when p_state = 'dead' or p_error ->> 'code' = 'compensation_failed' then r.compensating end,
        event_seq = r.event_seq + 1
    where r.tenant_id = app.tenant() and r.run_id = p_run_id and r.state = 'running'
    returning r.event_seq into number;
    if not found then return null; end if;
    delete from waits where run_id = p_run_id;
    insert into run_events (tenant_id, run_id, seq, at, kind, data)
    values (app.tenant(), p_run_id, number, p_now, p_state,
            jsonb_build_object('outcome', p_outcome, 'error', p_error));
    return app.close_reviews(p_run_id, p_now);
end $$;

-- A worker's slot is given back and its run ends, in one statement: what both lock for the whole tenant and worker is
-- then locked for as long as the server works. Null: that claim of the run is over.
create function app.run_end(p_run_id text, p_claim integer, p_state text, p_output jsonb, p_outcome text, p_error jsonb,
                            p_now timestamptz)
returns integer language plpgsql as $$
begin
    perform app.lock_reviews(p_run_id);
    if app.release(p_run_id, p_claim, p_now) is null then return null; end if;
    return app.run_finish(p_run_id, p_state, p_output, p_outcome, p_error, p_now);
end $$;

-- Whether a run has done something that there is a way to undo, and that is not undone: before it ends badly it executes
-- once more (core/workflows/undoing.py). Undos have the number of their step, below zero.
create function app.undoable(p_run_id text) returns boolean language sql stable as $$
    select exists (
        select from run_steps s
        where s.tenant_id = app.tenant() and s.run_id = p_run_id and s.undo and s.state = 'done' and not s.aside
          and not exists (select from run_steps u
                          where u.run_id = p_run_id and u.step = -s.step and u.state = 'done' and not u.aside))
$$;

-- Cancel: at once when queued, waiting or dead, by request when running, or when it did what can be undone: then it
-- executes once more, a dead one with its deaths and its duration counted anew. What it had asked is over, and what it
-- waited for, too; a running one keeps that until it parks, and learns there that it is to stop. Returns the state it was
-- in and the one from then on, and how many questions that closed; no row when there is no such run.
create function app.queue_cancel(p_run_id text, p_now timestamptz) returns table (was text, state text, closed integer)
language plpgsql as $$
#variable_conflict use_column
begin
    perform app.lock_reviews(p_run_id);
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    update runs r set held = false, ready = false where r.run_id = p_run_id and r.tenant_id = app.tenant()
    returning r.state into was;
    if not found then return; end if;
    if was = 'queued' then
        perform app.queue_left(p_run_id, p_now);
    end if;
    if was in ('queued', 'waiting') then
        delete from waits where run_id = p_run_id;
    end if;
    closed := app.close_reviews(p_run_id, p_now);
    state := was;
    if was = 'running' then
        update runs r set cancel_requested = true where r.run_id = p_run_id;
    elsif was in ('queued', 'waiting', 'dead') and app.undoable(p_run_id) then
        update runs r
        set cancel_requested = true, error = null, finished_at = null,
            recoveries = case was when 'dead' then 0 else r.recoveries end,
            started_at = case when was <> 'dead' then r.started_at end
        where r.run_id = p_run_id;
        state := app.queue_again(p_run_id, was, null, p_now);
    elsif was in ('queued', 'waiting', 'dead') then
        state := 'cancelled';
        update runs r set state = 'cancelled', cause = null, error = null, compensating = null, finished_at = p_now
        where r.run_id = p_run_id;
    end if;
    return next;
end $$;
select app.control('app.queue_cancel(text, timestamptz)');
