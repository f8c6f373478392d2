-- Child runs: a run spawns others, waits for them for free, and takes its open children with it when it does not succeed.
--
--     parent   executing --spawn--> executing --nothing else to do--> waiting(children) --the last one ends--> queued
--     child    queued ... a run like any other; parent_run_id and parent_step say where it comes from
--
-- The last one. A wait with cause 'children' has as its key the step that spawned. Whoever ends a run holds the
-- tenant's queue_tenants row (app.release and app.queue_cancel lock it before any run), and so does a parent that looks
-- whether it has to wait. So ends and looks come one after the other, each sees those before it, and the
-- one that finds no open sibling wakes the parent: one probe of an index per end, however many siblings there are. A
-- child that is retried is open again, and counts again while its parent still waits.
--
-- A window. A step that keeps at most n children open waits, while some are still to be spawned, under the key
-- 'step/any': whichever child of the step ends wakes the parent, which spawns as many as have ended by the time it
-- executes. Those that end between the wake and that find no wait any more, so they wake nobody.
--
-- Who the children of a step are stands in the record of the step: once all are spawned, their ids in order; until then
-- {"key": what their idempotency keys have in common, "next": the number of the next one, "of": how many in all,
-- "kept": in a fork, those of the other run that ended well, by number}.
--
-- When a parent ends other than succeeded while children of it are open, its end writes a row in orphans, in the same
-- transaction. The service cancels them at once, some at a time, each time in a transaction of its own because
-- reviews are locked before the queue; whatever a crash left of that is still written there, and the scheduler's.
--
-- Lock order: that of 0010_queue_verbs.sql. The runs row of a parent is locked after its child's; nobody locks a
-- child's row while holding only its parent's.

create table orphans (
    tenant_id text not null references tenants,
    run_id    text not null,             -- the parent
    primary key (tenant_id, run_id),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
select app.fence('orphans', 'select, insert');

-- Children of a run that have not ended.
create function app.open_children(p_tenant text, p_parent text)
returns table (run_id text, cancel_requested boolean) language sql stable as $$
    select c.run_id, c.cancel_requested from runs c
    where c.tenant_id = p_tenant and c.parent_run_id = p_parent and c.state in ('queued', 'running', 'waiting')
$$;

-- Whether any of those that one step spawned is among them.
create function app.awaits_children(p_tenant text, p_parent text, p_step integer) returns boolean
language sql stable as $$
    select exists (select from runs c
                   where c.tenant_id = p_tenant and c.parent_run_id = p_parent and c.parent_step = p_step
                     and c.state in ('queued', 'running', 'waiting'))
$$;

-- The children of a step, by number: those that it spawned, and in a fork those that it was given.
create function app.brood(p_run_id text, p_step integer) returns table (number integer, run_id text)
language sql stable as $$
    with record as (
        select s.result from run_steps s
        where s.tenant_id = app.tenant() and s.run_id = p_run_id and s.step = p_step and not s.aside
        order by s.attempt desc limit 1
    )
    select (e.place - 1)::integer, e.run_id
    from record r cross join jsonb_array_elements_text(
        case jsonb_typeof(r.result) when 'array' then r.result else '[]' end) with ordinality e (run_id, place)
    union all
    select k.number::integer, k.run_id
    from record r cross join jsonb_each_text(coalesce(r.result -> 'kept', '{}')) k (number, run_id)
    union all
    select split_part(c.idempotency_key, '/', 4)::integer, c.run_id
    from record r join runs c on c.tenant_id = app.tenant() and c.parent_run_id = p_run_id and c.parent_step = p_step
    where starts_with(c.idempotency_key, p_run_id || '/' || (r.result ->> 'key') || '/')
$$;

create function app.run_ended() returns trigger language plpgsql as $$
declare awaited record;
begin
    if new.state <> 'succeeded' and exists (select from app.open_children(new.tenant_id, new.run_id)) then
        insert into orphans values (new.tenant_id, new.run_id) on conflict do nothing;
    end if;
    if new.parent_run_id is not null then
        for awaited in
            select w.step, w.key from waits w
            where w.run_id = new.parent_run_id and w.tenant_id = new.tenant_id and w.cause = 'children'
              and w.key in (new.parent_step::text, new.parent_step || '/any')
        loop
            if awaited.key <> new.parent_step::text
                or not app.awaits_children(new.tenant_id, new.parent_run_id, new.parent_step) then
                perform app.wake(new.parent_run_id, awaited.step, new.finished_at);
            end if;
        end loop;
    end if;
    return null;
end $$;
create trigger ended after update of state on runs for each row
    when (old.finished_at is null and new.finished_at is not null
          and (new.parent_run_id is not null or new.state <> 'succeeded'))
    execute function app.run_ended();

-- Cancel up to p_limit open children of a run that ended other than succeeded, and say in their event logs why.
-- Returns those it looked at, where they stand from then on (null: somebody else came first) and how many questions that
-- closed; nothing: there are none any more, or the run was retried, and nobody is orphaned.
create function app.cancel_orphans(p_parent text, p_limit integer, p_now timestamptz)
returns table (run_id text, state text, closed integer)
language plpgsql as $$
#variable_conflict use_column
declare
    chosen text[];
    number integer;
begin
    select array_agg(c.run_id order by c.run_id) into chosen
    from (select o.run_id from app.open_children(app.tenant(), p_parent) o
          where not o.cancel_requested order by o.run_id limit p_limit) c;
    perform 1 from reviews v where v.tenant_id = app.tenant() and v.run_id = any(chosen) and v.state = 'open'
    order by v.review_id for update;
    perform 1 from queue_tenants where tenant_id = app.tenant() for update;
    perform 1 from runs p where p.tenant_id = app.tenant() and p.run_id = p_parent
      and p.finished_at is not null and p.state <> 'succeeded';
    if not found or chosen is null then
        delete from orphans where tenant_id = app.tenant() and run_id = p_parent;
        return;
    end if;
    foreach run_id in array chosen loop
        state := null; closed := 0;
        -- Somebody else may have come first, before we had the queue.
        if exists (select from app.open_children(app.tenant(), p_parent) o
                   where o.run_id = cancel_orphans.run_id and not o.cancel_requested) then
            select c.state, c.closed into state, closed from app.queue_cancel(run_id, p_now) c;
            update runs r set event_seq = r.event_seq + 1
            where r.tenant_id = app.tenant() and r.run_id = cancel_orphans.run_id
            returning r.event_seq into number;
            insert into run_events (tenant_id, run_id, seq, at, kind, data)
            values (app.tenant(), cancel_orphans.run_id, number, p_now,
                    case state when 'cancelled' then 'cancelled' else 'cancel_requested' end,
                    jsonb_build_object('actor', 'run:' || p_parent));
        end if;
        return next;
    end loop;
end $$;
select app.control('app.cancel_orphans(text, integer, timestamptz)');

-- Tenants that have runs whose open children are still to be cancelled: what a crash left.
create function app.orphaned() returns table (tenant_id text) language sql stable as $$
    select distinct o.tenant_id from orphans o where app.outside()
$$;
select app.control('app.orphaned()');

-- A run's relatives without their content: its parent, of its children how many are in which state, and twenty of them,
-- those first that did not succeed.
create function app.relative_rows(p_run_id text)
returns table (kind text, run_id text, workflow text, state text, runs bigint) language sql stable as $$
    select 'parent', p.run_id, p.workflow, p.state, 1
    from runs r join runs p on p.tenant_id = r.tenant_id and p.run_id = r.parent_run_id
    where r.run_id = p_run_id
    union all
    select 'count', null, null, c.state, count(*)
    from runs r join runs c on c.tenant_id = r.tenant_id and c.parent_run_id = r.run_id
    where r.run_id = p_run_id group by c.state
    union all
    select 'child', few.run_id, few.workflow, few.state, 1
    from (
        select c.run_id, c.workflow, c.state
        from runs r join runs c on c.tenant_id = r.tenant_id and c.parent_run_id = r.run_id
        where r.run_id = p_run_id
        order by c.state = 'succeeded', c.finished_at is not null, c.run_id limit 20
    ) few
$$;

create function app.op_relative_rows(p_run_id text)
returns table (kind text, run_id text, workflow text, state text, runs bigint) language sql stable as $$
    select * from app.relative_rows(p_run_id) where app.tenant() = 'platform'
$$;
select app.control('app.op_relative_rows(text)');
