-- Memory: what was learned from conversations, and the way of its triples into the graph.
--
-- A memory is tenant-wide (user_id null: how the organisation works) or one person's. It says when it was true
-- (valid_from .. valid_to) besides when it was learned (learned_at); a memory that contradicts another one of
-- the same owner closes it and is named in superseded_by. History stays until it is forgotten; forgetting
-- deletes the row, and the audit keeps who did it.
--
-- The graph is a copy that may lag or vanish. Every change of a memory writes its id, and nothing of its
-- content, to memory_outbox in the same transaction. Positions are given out under the tenant's row in
-- memory_heads, which also puts all writers of one tenant in line: so positions become visible in order, and
-- of two contradicting statements made at once one sees the other. The applier (memory/projection.py) holds an
-- advisory lock per tenant, brings the graph to what the row says now (or removes it there when the row is
-- gone), notes the position in the graph in the same graph transaction, and deletes what it applied here.
--
-- Vectors have no HNSW index on purpose: a search is exact inside the tenant, which the primary key narrows
-- down to; an index over all tenants filters after the scan and loses rows (decision 0010).
-- Nobody looks at memories across tenants: bailiwick_control may see which tenant has work to do, no content.

create table memory_heads (
    tenant_id        text primary key references tenants,
    last_position    bigint not null default 0,
    applied_position bigint not null default 0
);
select app.fence('memory_heads', 'select, insert, update');

create table memories (
    tenant_id       text not null references tenants,
    memory_id       text not null,
    user_id         text,                           -- null: known to the whole tenant
    kind            text not null check (kind in ('fact', 'triple')),
    text            text not null check (length(text) between 1 and 2000),
    subject         text,
    predicate       text,
    object          text,
    -- What subject, predicate and object are compared by: no case, article or punctuation.
    subject_key     text,
    predicate_key   text,
    object_key      text,
    -- What it was said in reply to: searched for words, neither embedded nor shown.
    context         text not null default '' check (length(context) <= 2000),
    content_hash    bytea not null,
    embedding       vector(384),
    embedding_model text,                           -- null: not embedded yet
    tsv             tsvector generated always as (to_tsvector('english', text || ' ' || context)) stored,
    thread_id       text,
    message_id      text,
    model           text,                           -- null: taken as it was said
    learned_by      text not null,                  -- actor
    taught_by       text,                           -- the person who said it; null when erased, or nobody did
    learned_at      timestamptz not null,
    source_key      text,                           -- of the step that learned it: a repeated step learns nothing
    confirmed_at    timestamptz not null,           -- when it was last said
    valid_from      timestamptz not null,
    valid_to        timestamptz,
    superseded_by   text,
    primary key (tenant_id, memory_id),
    foreign key (tenant_id, user_id) references users (tenant_id, user_id),
    foreign key (tenant_id, superseded_by) references memories on delete set null (superseded_by),
    check ((kind = 'triple') = (subject is not null and predicate is not null and object is not null)),
    check ((embedding is null) = (embedding_model is null)),
    check (valid_to >= valid_from),
    check (superseded_by is null or valid_to is not null)
);
-- A vector of this length stays in its row: reading it costs no second look-up.
alter table memories alter column embedding set storage plain;
-- Nobody is told the same thing twice.
create unique index memories_said_once on memories (tenant_id, coalesce(user_id, ''), content_hash)
    where valid_to is null;
create unique index memories_related_once
    on memories (tenant_id, coalesce(user_id, ''), subject_key, predicate_key, object_key)
    where kind = 'triple' and valid_to is null;
create index memories_teacher on memories (tenant_id, taught_by) where taught_by is not null;
create index memories_thread on memories (tenant_id, thread_id);
create index memories_source on memories (tenant_id, source_key) where source_key is not null;
create index memories_successor on memories (tenant_id, superseded_by) where superseded_by is not null;
create index memories_unembedded on memories (tenant_id, learned_at) where embedding_model is null;
select app.fence('memories', 'select, insert, update, delete');
revoke all on memories from bailiwick_control;
grant select (tenant_id, embedding_model) on memories to bailiwick_control;

create table memory_outbox (
    tenant_id text not null references tenants,
    position  bigint not null,
    memory_id text not null,
    primary key (tenant_id, position)
);
select app.fence('memory_outbox', 'select, insert, delete');

-- Tenants whose memories wait for an embedding or for the graph.
create function app.memory_behind() returns table (tenant_id text) language sql stable as $$
    select h.tenant_id from memory_heads h where app.outside() and h.applied_position < h.last_position
    union
    select m.tenant_id from memories m where app.outside() and m.embedding_model is null
$$;
select app.control('app.memory_behind()');
