-- What people do to runs besides cancelling them: pause and resume. The rules of locking are at the top of
-- 0010_queue_verbs.sql.
--
-- A run that somebody paused is held. It is then in one of two states, and the table refuses any other:
--
--     running   it goes on until its next step would begin, and parks there (or ends, if there is none)
--     waiting   cause 'paused', whatever else it waits for; out of the queue if it was in it
--
-- What it waits for may end meanwhile: reviews are decided, timers run out. Then it is ready: it does not enter the queue,
-- but it will as soon as it is resumed. One that is not ready goes back to waiting for what it waited for.
--
--     hold     queued --> waiting, ready          waiting --> waiting          running --> running
--     meanwhile           a wait ends --> ready                                parks, or its worker dies --> waiting, ready
--     resume   ready --> queued at the head of its lane    not ready --> waiting for the same as before    running: as if
--              nothing had been
--
-- A cancellation ends the hold, and so does the beginning of undoing what the run did: that does not stand still half way,
-- and from then on nobody pauses the run. Every verb locks the tenant's queue first, so they come one after the other.

-- A run leaves the queue without a slot, and what it waited for there is kept. The caller has locked the queue.
create function app.queue_left(p_run_id text, p_now timestamptz) returns void language plpgsql as $$
declare flow bigint;
begin
    insert into slot_uses (tenant_id, released_at, run_id, queued_at, claimed_at, burst, capped_s, paused_s, no_worker_s,
                           no_code_s)
    select app.tenant(), p_now, p_run_id, p.queued_at, p_now, false, p.capped_s, p.paused_s, p.no_worker_s, p.no_code_s
    from app.passage_rows(p_run_id, p_now) p where p.claimed_at is null;
    delete from queue_entries where run_id = p_run_id returning flow_id into flow;
    update queue_flows f
    set queued = f.queued - 1, head_rank = (select min(h.rank) from queue_entries h where h.flow_id = f.flow_id)
    where f.flow_id = flow;
    update queue_tenants set queued = queued - 1 where tenant_id = app.tenant();
end $$;

-- A run that was in a state goes on: it enters the queue at the head of its lane, or, held, is ready to. p_told: what its
-- log then says of a running one, null: nothing. Returns the state from then on, null when it was in another one. The
-- caller has locked the queue.
create function app.queue_again(p_run_id text, p_was text, p_told text, p_now timestamptz) returns text language plpgsql as $$
declare
    stands text;
    number integer;
begin
    update runs r
    set state = case when r.held then 'waiting' else 'queued' end, cause = case when r.held then 'paused' end,
        ready = r.held, woken = false, queued_at = case when r.held then r.queued_at else p_now end,
        event_seq = r.event_seq + (p_was = 'running' and (r.held or p_told is not null))::integer
    where r.tenant_id = app.tenant() and r.run_id = p_run_id and r.state = p_was
    returning r.state, r.event_seq into stands, number;
    if stands = 'queued' then
        perform app.queue_push(array[p_run_id], true, p_now);
    end if;
    if p_was = 'running' and (stands = 'waiting' or stands = 'queued' and p_told is not null) then
        insert into run_events (tenant_id, run_id, seq, at, kind, data)
        values (app.tenant(), p_run_id, number, p_now, case when stands = 'waiting' then 'waiting' else p_told end,
                case when stands = 'waiting' then jsonb_build_object('cause', 'paused') else '{}' end);
    end if;
    return stands;
end $$;
select app.control('app.queue_again(text, text, text, timestamptz)');

-- Pause a run. Returns how it stood before, no row when there is no such run. One that has ended, is held already, is being
-- cancelled or undoes what it did stays as it is.
create function app.queue_hold(p_run_id text, p_now timestamptz)
returns table (state text, held boolean, cancelling boolean, undoing boolean) language plpgsql as $$
#variable_conflict use_column
declare was runs%rowtype;
begin
    perform 1 from queue_tenants q where q.tenant_id = app.tenant() for update;
    select * into was from runs r where r.tenant_id = app.tenant() and r.run_id = p_run_id for update;
    if not found then return; end if;
    if was.state in ('queued', 'waiting', 'running') and not was.held and not was.cancel_requested
       and was.compensating is null then
        if was.state = 'queued' then
            perform app.queue_left(p_run_id, p_now);
        end if;
        update runs r
        set held = true, ready = was.state = 'queued',
            state = case when was.state = 'running' then 'running' else 'waiting' end,
            cause = case when was.state = 'running' then null else 'paused' end
        where r.run_id = p_run_id;
    end if;
    return query select was.state, was.held, was.cancel_requested, was.compensating is not null;
end $$;
select app.control('app.queue_hold(text, timestamptz)');

-- Resume a run. Returns how it stood before, and where it stands and what for now; no row when there is no such run. One
-- that is not held stays as it is.
create function app.queue_resume(p_run_id text, p_now timestamptz)
returns table (was text, held boolean, state text, cause text) language plpgsql as $$
#variable_conflict use_column
declare
    run   runs%rowtype;
    waits text;
begin
    perform 1 from queue_tenants q where q.tenant_id = app.tenant() for update;
    select * into run from runs r where r.tenant_id = app.tenant() and r.run_id = p_run_id for update;
    if not found then return; end if;
    if run.held then
        select w.cause into waits from waits w where w.run_id = p_run_id order by w.since, w.step limit 1;
        update runs r set held = false, ready = false where r.run_id = p_run_id;
        if run.ready or waits is null then
            perform app.queue_again(p_run_id, 'waiting', null, p_now);
        else
            update runs r set cause = waits where r.run_id = p_run_id and r.state = 'waiting';
        end if;
    end if;
    return query select run.state, run.held, r.state, r.cause from runs r where r.run_id = p_run_id;
end $$;
select app.control('app.queue_resume(text, timestamptz)');
