-- name: line_up
-- Put this tenant's writers in line, and learn the last position given out. Held until the transaction ends.
insert into memory_heads (tenant_id, last_position) values (app.tenant(), 0)
on conflict (tenant_id) do update set last_position = memory_heads.last_position
returning last_position;

-- name: already_learned
-- How many memories a step with this key has stored: a repeated step learns nothing.
select count(*) from memories where tenant_id = app.tenant() and source_key = $1;

-- name: insert_memory
-- A new memory. No row comes back when its owner has been told the same, in words or as a triple.
insert into memories (
    tenant_id, memory_id, user_id, kind, text, subject, predicate, object, subject_key, predicate_key, object_key,
    context, content_hash, embedding, embedding_model, thread_id, message_id, model, learned_by, taught_by,
    learned_at, source_key, confirmed_at, valid_from, valid_to, superseded_by)
values (app.tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::vector, $14, $15, $16, $17, $18,
        $19, $20, $21, $22, $22, $23, $24)
on conflict do nothing
returning memory_id;

-- name: confirm
-- The valid memory of this owner that says the same, now confirmed: it was true at least from $7 on and was
-- last said then.
update memories
set confirmed_at = greatest(confirmed_at, $7::timestamptz), valid_from = least(valid_from, $7::timestamptz)
where tenant_id = app.tenant() and user_id is not distinct from $1 and valid_to is null
  and (content_hash = $2
       or kind = 'triple' and $3 = 'triple' and (subject_key, predicate_key, object_key) = ($4, $5, $6))
returning memory_id;

-- name: rivals
-- Valid memories of the same owner with the same subject and predicate and another object, older than this
-- batch ($5: ids stored by it): what is stated in one breath holds together.
select memory_id, valid_from from memories
where tenant_id = app.tenant() and user_id is not distinct from $1 and kind = 'triple' and valid_to is null
  and subject_key = $2 and predicate_key = $3 and object_key <> $4 and memory_id <> all ($5::text[]);

-- name: replaceable
-- Those of the named memories that are valid, of the same owner and older than this batch.
select memory_id, valid_from from memories
where tenant_id = app.tenant() and user_id is not distinct from $1 and valid_to is null
  and memory_id = any ($2::text[]) and memory_id <> all ($3::text[]);

-- name: close
-- End the validity of memories, and say what came after.
update memories set valid_to = greatest(valid_from, $2::timestamptz), superseded_by = $3
where tenant_id = app.tenant() and memory_id = any ($1::text[]) and valid_to is null;

-- name: enqueue
-- Note that the graph has to follow a memory. The head's row is locked by this transaction (line_up), so
-- positions are given out without gaps and become visible in order.
with head as (
    update memory_heads set last_position = last_position + 1 where tenant_id = app.tenant() returning last_position
)
insert into memory_outbox (tenant_id, position, memory_id) select app.tenant(), last_position, $1 from head;

-- name: memories_by_id
-- Memories the asker may see, by id, closed ones included.
select memory_id, user_id, kind, text, subject, predicate, object, thread_id, message_id, model, learned_by,
       learned_at, confirmed_at, valid_from, valid_to, superseded_by
from memories
where tenant_id = app.tenant() and (user_id is null or user_id = $1) and memory_id = any ($2::text[]);

-- name: newest
-- Valid memories the asker may see, newest first.
select memory_id, user_id, kind, text, subject, predicate, object, thread_id, message_id, model, learned_by,
       learned_at, confirmed_at, valid_from, valid_to, superseded_by
from memories
where tenant_id = app.tenant() and (user_id is null or user_id = $1) and valid_from <= $2
  and (valid_to is null or valid_to > $2)
order by confirmed_at desc, memory_id desc limit $3;

-- name: candidates
-- What may answer a query, with everything the ranking needs, in one pass over the memories the asker may see.
-- $1 asker, $2 valid when, $3 query's embedding (null: none), $4 its model, $5 the query, $6 how many by words
-- and how many by meaning, $7 ids the graph suggests.
-- The search by meaning is exact. The words are picked by the rarity of what they share; BM25 follows in the ranking.
with visible as materialized (
    select memory_id, tsv, length(tsv) as length,
           case when embedding_model = $4 then 1 - (embedding <=> $3::text::vector) end as similarity
    from memories
    where tenant_id = app.tenant() and (user_id is null or user_id = $1) and valid_from <= $2
      and (valid_to is null or valid_to > $2)
), asked as (
    select lexeme from unnest(to_tsvector('english', $5))
), hits as (
    select v.memory_id, w.lexeme, coalesce(cardinality(w.positions), 1) as count
    from visible v, unnest(v.tsv) w
    where v.tsv @@ (select string_agg(quote_literal(lexeme), ' | ')::tsquery from asked)
      and w.lexeme in (select lexeme from asked)
), frequencies as (
    select lexeme, count(*) as containing from hits group by lexeme
), corpus as (
    select count(*) as total, coalesce(avg(length), 0)::float8 as average_length,
           coalesce(avg(similarity), 0)::float8 as similarity_mean,
           coalesce(stddev_pop(similarity), 0)::float8 as similarity_deviation,
           (select coalesce(jsonb_object_agg(lexeme, containing), '{}') from frequencies) as frequencies
    from visible
), by_words as (
    select h.memory_id
    from hits h join frequencies f using (lexeme), corpus c
    group by h.memory_id order by sum(ln(1 + c.total::float8 / f.containing)) desc, h.memory_id limit $6
), by_meaning as (
    select memory_id from visible where similarity is not null order by similarity desc, memory_id limit $6
), chosen as (
    select memory_id from by_words
    union select memory_id from by_meaning
    union select unnest($7::text[])
), counted as (
    select memory_id, jsonb_object_agg(lexeme, count) as matched
    from hits join chosen using (memory_id) group by memory_id
)
select m.memory_id, m.text, m.kind, m.thread_id, m.learned_at, m.confirmed_at, v.similarity::float8 as similarity,
       v.length, coalesce(k.matched, '{}') as matched,
       c.total, c.average_length, c.frequencies, c.similarity_mean, c.similarity_deviation
from chosen join visible v using (memory_id) join memories m using (memory_id)
     left join counted k using (memory_id), corpus c
where m.tenant_id = app.tenant();

-- name: forget
-- Delete memories the asker may see, by id.
delete from memories
where tenant_id = app.tenant() and (user_id is null or user_id = $1) and memory_id = any ($2::text[])
returning memory_id, kind, user_id, thread_id;

-- name: of_thread
-- Ids of what was learned from a conversation and is the asker's own or known to the whole tenant.
select memory_id from memories
where tenant_id = app.tenant() and (user_id is null or user_id = $1) and thread_id = $2;

-- name: of_user
-- Ids of what belongs to one person.
select memory_id from memories where tenant_id = app.tenant() and user_id = $1;

-- name: depersonalise
-- What a person taught the whole tenant stays, without the trace of who said it where and in reply to what.
update memories
set thread_id = null, message_id = null, context = '', source_key = null, learned_by = 'erased', taught_by = null
where tenant_id = app.tenant() and user_id is null and taught_by = $1
returning memory_id;

-- name: unembedded
-- The oldest memories without an embedding by this model.
select memory_id, text from memories
where tenant_id = app.tenant() and embedding_model is distinct from $1
order by learned_at limit $2;

-- name: embed
-- Give a memory its embedding.
update memories set embedding = $2::text::vector, embedding_model = $3
where tenant_id = app.tenant() and memory_id = $1;

-- name: try_graph_lock
-- The right to write this tenant's graph, until the transaction ends; false when somebody else has it.
select pg_try_advisory_xact_lock(hashtextextended('memory-graph:' || app.tenant(), 0));

-- name: graph_position
-- The last position that was applied to the graph, and the last one given out.
select applied_position, last_position from memory_heads where tenant_id = app.tenant();

-- name: waiting
-- The oldest changes the graph has not followed yet, with what their memories say now: nulls where there is
-- nothing (any more) for the graph.
select o.position, o.memory_id, m.subject, m.predicate, m.object, m.subject_key, m.object_key,
       coalesce(m.user_id, '') as owner, m.valid_from, m.valid_to, m.thread_id, m.learned_at
from memory_outbox o left join memories m
     on m.tenant_id = o.tenant_id and m.memory_id = o.memory_id and m.kind = 'triple'
where o.tenant_id = app.tenant() order by o.position limit $1;

-- name: applied
-- The graph has followed up to this position.
with done as (
    delete from memory_outbox where tenant_id = app.tenant() and position <= $1
)
update memory_heads set applied_position = greatest(applied_position, $1) where tenant_id = app.tenant();

-- name: anything_waiting
-- Whether the graph has something to follow.
select exists (select from memory_outbox where tenant_id = app.tenant());

-- name: enqueue_all
-- Send every triple to the graph again: it lost what it had.
with numbered as (
    select memory_id, row_number() over (order by learned_at, memory_id) as number
    from memories where tenant_id = app.tenant() and kind = 'triple'
), head as (
    update memory_heads set last_position = last_position + (select count(*) from numbered)
    where tenant_id = app.tenant() returning last_position - (select count(*) from numbered) as base
)
insert into memory_outbox (tenant_id, position, memory_id)
select app.tenant(), base + number, memory_id from numbered, head;

-- name: tenants_behind
-- Tenants whose memories wait for an embedding or for the graph.
select tenant_id from app.memory_behind();
