-- Acts on many runs at once: chosen by a filter, looked at, then performed, each run exactly once.
--
--     (none) --choose--> previewed --apply--> applying --(no run left)--> done
--
-- The preview fixes the set of runs, with the state in which each was. Applying goes through it one run per transaction:
-- the act and what became of it are written together, so whoever goes on after a crash finds what is left, and nobody
-- does anything twice. Whoever applied it is the actor of every act, whichever process performs it.

create table bulks (
    bulk_id    text primary key,
    tenant_id  text not null references tenants,
    act        text not null check (act in ('cancel', 'retry', 'pause', 'resume')),
    filter     jsonb not null,
    state      text not null default 'previewed' check (state in ('previewed', 'applying', 'done')),
    -- Who chose, and since it is applied who applied it.
    actor_kind text not null,
    actor_id   text not null,
    user_id    text,
    created_at timestamptz not null,
    applied_at timestamptz,
    done_at    timestamptz,
    unique (tenant_id, bulk_id)
);
create index bulks_applying on bulks (applied_at) where state = 'applying';
create index bulks_age on bulks (created_at);
select app.fence('bulks', 'select, insert, update');

create table bulk_runs (
    tenant_id text not null,
    bulk_id   text not null,
    run_id    text not null,
    position  integer not null,
    was       text not null,           -- its state at the preview
    outcome   text check (outcome in ('done', 'skipped')),
    reason    text,                    -- why it was skipped
    primary key (bulk_id, run_id),
    foreign key (tenant_id, bulk_id) references bulks (tenant_id, bulk_id),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index bulk_runs_left on bulk_runs (bulk_id, position) where outcome is null;
select app.fence('bulk_runs', 'select, insert, update');

-- Those that are being applied, the longest first: somebody must go on with what a process left when it died.
create function app.bulks_applying(p_limit integer)
returns table (tenant_id text, bulk_id text, actor_kind text, actor_id text, user_id text) language sql stable as $$
    select b.tenant_id, b.bulk_id, b.actor_kind, b.actor_id, b.user_id from bulks b
    where b.state = 'applying' and app.outside() order by b.applied_at limit p_limit
$$;
select app.control('app.bulks_applying(integer)');

-- Forget up to p_limit of those that were chosen before a moment and never applied, or are done and that old. How many.
create function app.bulks_purge(p_before timestamptz, p_limit integer) returns integer language plpgsql as $$
declare old text[];
begin
    perform app.outside();
    select array_agg(o.bulk_id) into old from (
        select b.bulk_id from bulks b where b.created_at < p_before and b.state <> 'applying'
        order by b.created_at limit p_limit) o;
    delete from bulk_runs where bulk_id = any(old);
    delete from bulks where bulk_id = any(old);
    return coalesce(cardinality(old), 0);
end $$;
select app.control('app.bulks_purge(timestamptz, integer)');
