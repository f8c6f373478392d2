-- Which runs there are, and how each went: pages of runs, attempts of steps, transitions. Asked twice, by a tenant and by
-- operators, and without content, as 0009_operations.sql says.

-- Whether a run is one of those that are looked for, and comes after the last one shown. Null arguments do not filter.
create function app.is_looked_for(r runs, p_user text, p_state text, p_workflow text, p_batch text, p_outcome text,
                                  p_before_at timestamptz, p_before_id text)
returns boolean language sql immutable as $$
    select (p_user is null or r.user_id = p_user)
       and (p_state is null or r.state = p_state)
       and (p_workflow is null or r.workflow = p_workflow)
       and (p_batch is null or r.batch_id = p_batch)
       and (p_outcome is null or r.outcome = p_outcome)
       and (p_before_at is null or (r.submitted_at, r.run_id) < (p_before_at, p_before_id))
$$;

-- Runs of this id, or, when there is none, of this batch or with this idempotency key.
create function app.runs_called(p_name text)
returns setof runs language sql stable as $$
    select r.* from runs r where r.run_id = p_name
    union all
    select r.* from tenants t
    cross join lateral (
        select * from runs where tenant_id = t.tenant_id and batch_id = p_name
        union
        select * from runs where tenant_id = t.tenant_id and idempotency_key = p_name
    ) r
    where not exists (select from runs where run_id = p_name)
$$;

-- Runs, newest first, without their content. Null arguments do not filter. p_search is a whole run id, batch id
-- or idempotency key; p_before_… continue after the last row of the page before.
-- Of each tenant the newest one is looked up first: a page of n runs holds runs of no tenants but the n whose newest
-- are the newest, so that 10,000 tenants cost 10,000 rows and not as many pages. What is on the page is told by indexes
-- alone: where hardly any run, or none, is looked for, they are read to their ends, and the runs themselves are not.
create function app.run_rows(p_tenant text, p_user text, p_state text, p_workflow text, p_batch text, p_outcome text,
                             p_search text, p_before_at timestamptz, p_before_id text, p_limit integer)
returns table (run_id text, tenant_id text, workflow text, version text, lane smallint, state text, cause text,
               source text, batch_id text, outcome text, error_code text, attempt integer,
               worker_seconds double precision, cost_microusd bigint, budget_microusd bigint,
               submitted_at timestamptz, started_at timestamptz, finished_at timestamptz, held boolean, forked_from text)
language sql stable as $$
    with first_ones as (
        select t.tenant_id
        from tenants t
        cross join lateral (
            select r.submitted_at, r.run_id from runs r
            where r.tenant_id = t.tenant_id
              and app.is_looked_for(r, p_user, p_state, p_workflow, p_batch, p_outcome, p_before_at, p_before_id)
            order by r.submitted_at desc, r.run_id desc limit 1
        ) newest
        where p_search is null and (p_tenant is null or t.tenant_id = p_tenant)
        order by newest.submitted_at desc, newest.run_id desc limit p_limit
    ), page as (
        select r.* from first_ones t
        cross join lateral (
            select r.tenant_id, r.submitted_at, r.run_id from runs r
            where r.tenant_id = t.tenant_id
              and app.is_looked_for(r, p_user, p_state, p_workflow, p_batch, p_outcome, p_before_at, p_before_id)
            order by r.submitted_at desc, r.run_id desc limit p_limit
        ) r
        union all
        select r.tenant_id, r.submitted_at, r.run_id from app.runs_called(p_search) r
        where p_search is not null and (p_tenant is null or r.tenant_id = p_tenant)
          and app.is_looked_for(r, p_user, p_state, p_workflow, p_batch, p_outcome, p_before_at, p_before_id)
        order by submitted_at desc, run_id desc limit p_limit
    )
    select r.run_id, r.tenant_id, r.workflow, r.version, r.lane, r.state,
           case when r.held then r.cause
                else coalesce((select min(w.cause) from waits w where w.run_id = r.run_id), r.cause) end, r.source,
           r.batch_id, r.outcome, r.error ->> 'code', r.attempt - (r.forked_from is not null)::integer, r.worker_seconds,
           coalesce(b.spent_microusd, 0), r.budget_microusd, r.submitted_at, r.started_at, r.finished_at,
           r.held, r.forked_from
    from page
    join runs r on r.tenant_id = page.tenant_id and r.run_id = page.run_id
    left join budget_accounts b on b.tenant_id = r.tenant_id and b.account = 'run:' || r.run_id
    order by r.submitted_at desc, r.run_id desc
$$;

-- Attempts of the steps of one run, without results.
create function app.step_rows(p_run_id text)
returns table (step integer, attempt integer, name text, kind text, state text, cost_microusd bigint, model text,
               started_at timestamptz, finished_at timestamptz, error_code text)
language sql stable as $$
    select s.step, s.attempt, s.name, s.kind, case when s.aside then 'set aside' else s.state end, s.cost_microusd, s.model, s.started_at, s.finished_at,
           s.error ->> 'code'
    from run_steps s where s.run_id = p_run_id order by s.step, s.attempt
$$;

-- Transitions of one run: when it did what, and the named cause where there is one; of a review, what was done with it.
create function app.transition_rows(p_run_id text)
returns table (seq integer, at timestamptz, kind text, cause text, step integer, attempt integer)
language sql stable as $$
    select e.seq, e.at, e.kind, case e.kind when 'review' then e.data ->> 'act' else e.data ->> 'cause' end,
           (e.data ->> 'step')::integer, (e.data ->> 'attempt')::integer
    from run_events e
    where e.run_id = p_run_id and e.kind not in ('progress', 'text', 'value')  -- what it did, not what it said
    order by e.seq
$$;

-- The same over all tenants, for operators: empty outside the tenant 'platform'.

create function app.op_run_rows(p_tenant text, p_user text, p_state text, p_workflow text, p_batch text,
                                p_outcome text, p_search text, p_before_at timestamptz, p_before_id text,
                                p_limit integer)
returns table (run_id text, tenant_id text, workflow text, version text, lane smallint, state text, cause text,
               source text, batch_id text, outcome text, error_code text, attempt integer,
               worker_seconds double precision, cost_microusd bigint, budget_microusd bigint,
               submitted_at timestamptz, started_at timestamptz, finished_at timestamptz, held boolean, forked_from text)
-- One plan for whatever is looked for would use no index but that of the tenants, and read all their runs.
language plpgsql stable set plan_cache_mode = force_custom_plan as $$
begin
    if app.tenant() = 'platform' then
        return query select * from app.run_rows(p_tenant, p_user, p_state, p_workflow, p_batch, p_outcome, p_search,
                                                p_before_at, p_before_id, p_limit);
    end if;
end $$;
select app.control('app.op_run_rows(text, text, text, text, text, text, text, timestamptz, text, integer)');

create function app.op_step_rows(p_run_id text)
returns table (step integer, attempt integer, name text, kind text, state text, cost_microusd bigint, model text,
               started_at timestamptz, finished_at timestamptz, error_code text)
language sql stable as $$ select * from app.step_rows(p_run_id) where app.tenant() = 'platform' $$;
select app.control('app.op_step_rows(text)');

create function app.op_transition_rows(p_run_id text)
returns table (seq integer, at timestamptz, kind text, cause text, step integer, attempt integer)
language sql stable as $$ select * from app.transition_rows(p_run_id) where app.tenant() = 'platform' $$;
select app.control('app.op_transition_rows(text)');
