-- Human decisions asked for by runs. A row survives reloads, restarts and deploys.
--
--     open --(enough votes)--> decided        open --(nothing needs the answer)--> cancelled --(asked again)--> open
--     open --(time is up, action "fail")--> expired --(retried)--> open
--     decided --(acted on, and the step needs another decision: money)--> open
--
-- Nothing needs the answer any more: the run ends, is to be cancelled or begins to undo what it did, or has another budget
-- than that which was asked about.
--
-- Whoever changes a review locks its row first, and after it the queue: so the first final vote wins exactly once.
-- Claims and votes live in the row they belong to: one lock, one write. At next_at somebody must hear that nobody
-- has decided: the review goes to the next level of its chain, or, after the last, what "expiry" says is done.

create table reviews (
    review_id      text primary key,
    tenant_id      text not null references tenants,
    run_id         text not null,
    step           integer not null,
    pool           text not null,          -- who is asked now; changes when it escalates
    role           text,                   -- a role that deciders need besides the right to decide
    shared         boolean not null default true,      -- the tenant's reviewer_pool when it was asked
    priority       smallint not null default 2,        -- class by tier: 0 enterprise, 1 standard, 2 free
    title          text not null,
    evidence       json not null,          -- json, not jsonb: people read it in the order in which it was given
    choices        text[] not null,
    form           json,                   -- JSON schema of what deciders fill in, in its own order
    needed         smallint not null default 1,        -- votes that a verdict needs ...
    of             smallint not null default 1,        -- ... of so many
    fallback       text,                   -- the verdict when no verdict can get enough votes any more
    chain          jsonb not null default '[]',
    level          smallint not null default 0,        -- levels of the chain that have been reached
    expiry         text not null default 'nothing' check (expiry in ('nothing', 'fail', 'decide')),
    expiry_verdict text,
    claims         jsonb not null default '[]',
    votes          jsonb not null default '[]',
    state          text not null check (state in ('open', 'decided', 'cancelled', 'expired')),
    used           boolean not null default false,     -- the decision was acted on
    verdict        text,
    comment        text,
    answer         jsonb,                  -- the form, filled in
    decided_by     text,
    created_at     timestamptz not null,
    due_at         timestamptz not null,   -- the SLA of the question, however often it escalates
    next_at        timestamptz,
    decided_at     timestamptz,
    unique (run_id, step),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index reviews_open on reviews (tenant_id, due_at, review_id) where state = 'open';
create index reviews_next on reviews (next_at) where state = 'open' and next_at is not null;
create index reviews_shared on reviews (priority, due_at, review_id) where state = 'open' and shared and role is null;
create index reviews_shared_decided on reviews (decided_by, decided_at desc) where shared and decided_by is not null;
create index reviews_recent on reviews (tenant_id, created_at desc);
-- Whatever the planner knows of the table, it reads by this what one run asks, and not all that its tenant asks.
create index reviews_of_run on reviews (run_id, tenant_id) where state = 'open';
select app.fence('reviews', 'select, insert, update');

-- What a run asks is locked, before the queue is, by whoever may end the run, and closed with it, in one transaction:
-- nobody is asked, and nothing escalates, about a run that has ended. Several reviews are locked by their ids, here as
-- everywhere: so nobody waits in a ring. With the rights of their caller.
create function app.lock_reviews(p_run_id text) returns void language plpgsql as $$
begin
    perform from reviews v where v.tenant_id = app.tenant() and v.run_id = p_run_id and v.state = 'open'
    order by v.review_id for update;
end $$;

-- How many were open.
create function app.close_reviews(p_run_id text, p_now timestamptz) returns integer language plpgsql as $$
declare closed integer;
begin
    update reviews v set state = 'cancelled', claims = '[]', decided_at = p_now
    where v.tenant_id = app.tenant() and v.run_id = p_run_id and v.state = 'open';
    get diagnostics closed = row_count;
    return closed;
end $$;

-- When the next open review must escalate or expire; null: none will. The scheduler sleeps until then.
create function app.reviews_next() returns timestamptz language sql stable as $$
    select min(next_at) from reviews where state = 'open' and next_at is not null and app.outside()
$$;
select app.control('app.reviews_next()');

-- Open reviews whose next moment has come, the longest first.
create function app.reviews_due(p_now timestamptz, p_limit integer) returns table (tenant_id text, review_id text)
language sql stable as $$
    select r.tenant_id, r.review_id from reviews r
    where r.state = 'open' and r.next_at <= p_now and app.outside()
    order by r.next_at limit p_limit
$$;
select app.control('app.reviews_due(timestamptz, integer)');

-- Cases of the shared pools, for people of the platform: whose each is, and nothing else of that tenant. Empty in any
-- other tenant's transaction. A case that needs a role of its tenant is that tenant's own.

-- Open ones: what is overdue first, then by class, then by due time.
create function app.shared_reviews(p_now timestamptz, p_limit integer)
returns table (review reviews, tenant_name text)
language sql stable as $$
    select v, t.name
    from (
        (select true as overdue, r as v from reviews r
         where r.state = 'open' and r.shared and r.role is null and r.due_at <= p_now
         order by r.priority, r.due_at, r.review_id limit p_limit)
        union all
        (select false, r from reviews r
         where r.state = 'open' and r.shared and r.role is null and r.due_at > p_now
         order by r.priority, r.due_at, r.review_id limit p_limit)
    ) found
    join tenants t on t.tenant_id = (v).tenant_id
    where app.tenant() = 'platform'
    order by overdue desc, (v).priority, (v).due_at, (v).review_id limit p_limit
$$;
select app.control('app.shared_reviews(timestamptz, integer)');

-- What one of them has decided, newest first.
create function app.shared_reviews_decided(p_actor text, p_limit integer)
returns table (review reviews, tenant_name text)
language sql stable as $$
    select r, t.name from reviews r join tenants t on t.tenant_id = r.tenant_id
    where app.tenant() = 'platform' and r.shared and r.decided_by = p_actor
    order by r.decided_at desc limit p_limit
$$;
select app.control('app.shared_reviews_decided(text, integer)');

-- Whose a case of a shared pool is; null for any other.
create function app.shared_review_tenant(p_review_id text) returns text
language sql stable as $$
    select r.tenant_id from reviews r
    where app.tenant() = 'platform' and r.review_id = p_review_id and r.shared and r.role is null
$$;
select app.control('app.shared_review_tenant(text)');
