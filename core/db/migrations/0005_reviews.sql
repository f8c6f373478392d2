-- Human decisions asked for by runs. A row survives reloads, restarts and deploys; the first valid decision
-- wins exactly once (the update is conditional on state 'open').

create table reviews (
    review_id  text primary key,
    tenant_id  text not null references tenants,
    run_id     text not null,
    step       integer not null,
    pool       text not null,
    title      text not null,
    evidence   jsonb not null,
    choices    text[] not null,
    state      text not null check (state in ('open', 'decided', 'cancelled')),
    verdict    text,
    comment    text,
    decided_by text,
    created_at timestamptz not null,
    due_at     timestamptz not null,
    decided_at timestamptz,
    unique (run_id, step),
    foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index reviews_open on reviews (tenant_id, due_at, review_id) where state = 'open';
create index reviews_recent on reviews (tenant_id, created_at desc);
select app.fence('reviews', 'select, insert, update');
