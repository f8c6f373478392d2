-- Conversations: threads of one person, what was said and done in them, and the files that came along.
--
-- A thread belongs to a tenant (the fence) and to one user of it (every statement names the user). Ids are
-- made by browsers, so they are unique per tenant only: a made-up id can neither hit nor reveal a foreign row.
-- Nobody looks at conversations across tenants: unlike other tables, bailiwick_control has no right here, but to forget
-- ids of deleted threads.

create table threads (
    tenant_id  text not null references tenants,
    thread_id  text not null check (length(thread_id) between 1 and 100),
    user_id    text not null,
    name       text,
    metadata   jsonb not null default '{}',
    tags       text[] not null default '{}',
    created_at timestamptz not null,
    updated_at timestamptz not null,      -- of the newest message
    primary key (tenant_id, thread_id),
    foreign key (tenant_id, user_id) references users (tenant_id, user_id)
);
create index threads_recent on threads (tenant_id, user_id, updated_at desc, thread_id desc);
select app.fence('threads', 'select, insert, update, delete');

-- Ids of threads that were deleted, and nothing else of them: what is written late opens none of them again. An id is kept
-- for as long as the tenant keeps its audit, which tells of the deletion.
create table deleted_threads (
    tenant_id  text not null references tenants,
    thread_id  text not null,
    deleted_at timestamptz not null,
    primary key (tenant_id, thread_id)
);
create index deleted_threads_age on deleted_threads (tenant_id, deleted_at);
select app.fence('deleted_threads', 'select, insert');
revoke insert, update on deleted_threads from bailiwick_control;

-- Messages, and the pieces of work shown between them.
create table thread_entries (
    tenant_id  text not null,
    entry_id   text not null check (length(entry_id) between 1 and 100),
    thread_id  text not null,
    parent_id  text,
    position   bigint generated always as identity,
    kind       text not null,             -- user_message, assistant_message, tool, run, ...
    name       text not null,
    input      text not null,
    output     text not null,
    is_error   boolean not null,
    extra      jsonb not null,            -- what only the interface understands: modes, icon, language, ...
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at   timestamptz,
    primary key (tenant_id, entry_id),
    foreign key (tenant_id, thread_id) references threads on delete cascade
);
create index thread_entries_of_thread on thread_entries (tenant_id, thread_id, created_at, position);
select app.fence('thread_entries', 'select, insert, update, delete');

-- Attachments (with content) and cards (with props). entry_id is no foreign key: a file may arrive first.
create table thread_elements (
    tenant_id  text not null,
    element_id text not null check (length(element_id) between 1 and 100),
    thread_id  text not null,
    entry_id   text,
    position   bigint generated always as identity,
    kind       text not null,             -- file, image, pdf, custom, ...
    name       text not null,
    mime       text,
    props      jsonb,
    extra      jsonb not null,
    content    bytea check (length(content) <= 5 * 1024 * 1024),
    digest     bytea generated always as (sha256(content)) stored,
    created_at timestamptz not null,
    primary key (tenant_id, element_id),
    foreign key (tenant_id, thread_id) references threads on delete cascade
);
create index thread_elements_of_thread on thread_elements (tenant_id, thread_id, position);
select app.fence('thread_elements', 'select, insert, update, delete');

-- What its reader thought of a message: one opinion per message.
create table thread_feedback (
    tenant_id   text not null,
    entry_id    text not null,
    feedback_id text not null,
    thread_id   text not null,
    value       smallint not null check (value in (0, 1)),
    comment     text,
    created_at  timestamptz not null,
    primary key (tenant_id, entry_id),
    unique (tenant_id, feedback_id),
    foreign key (tenant_id, entry_id) references thread_entries on delete cascade,
    foreign key (tenant_id, thread_id) references threads on delete cascade
);
create index thread_feedback_of_thread on thread_feedback (tenant_id, thread_id);
select app.fence('thread_feedback', 'select, insert, update, delete');

-- Batches of runs that a thread started: how it finds them again after a reload.
create table thread_batches (
    tenant_id  text not null,
    batch_id   text not null,
    thread_id  text not null,
    user_id    text not null,
    label      text not null,
    created_at timestamptz not null,
    primary key (tenant_id, thread_id, batch_id),
    foreign key (tenant_id, thread_id) references threads on delete cascade
);
create index thread_batches_of_user on thread_batches (tenant_id, user_id, created_at desc);
create index thread_batches_of_thread on thread_batches (tenant_id, thread_id, created_at desc);
select app.fence('thread_batches', 'select, insert');

do $$
declare
    each regclass;
begin
    foreach each in array array['threads', 'thread_entries', 'thread_elements', 'thread_feedback',
                                'thread_batches']::regclass[]
    loop
        execute format('drop policy control on %s', each);
        execute format('revoke all on %s from bailiwick_control', each);
    end loop;
end $$;

-- Forget the ids of deleted threads that every tenant's policy keeps no longer. Up to p_limit; how many.
create function app.deleted_threads_purge(p_now timestamptz, p_limit integer) returns integer language plpgsql as $$
declare forgotten integer;
begin
    perform app.outside();
    with old as (
        select d.tenant_id, d.thread_id
        from tenants t
        join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
        cross join lateral (
            select o.tenant_id, o.thread_id from deleted_threads o
            where o.tenant_id = t.tenant_id
              and o.deleted_at < p_now - make_interval(days => (p.document ->> 'audit_retention_days')::integer)
            order by o.deleted_at limit p_limit) d
        limit p_limit
    )
    delete from deleted_threads d using old where d.tenant_id = old.tenant_id and d.thread_id = old.thread_id;
    get diagnostics forgotten = row_count;
    return forgotten;
end $$;
select app.control('app.deleted_threads_purge(timestamptz, integer)');
