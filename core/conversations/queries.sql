-- Conversations. Every statement names the tenant (beside the fence) and the user.

-- name: open_thread
-- Make the thread unless it is there. An id that somebody else uses, or that was deleted, stays so: opened_thread finds
-- nothing then, and what this made is undone.
insert into threads (tenant_id, thread_id, user_id, created_at, updated_at)
values (app.tenant(), $1, $2, $3, $3) on conflict (tenant_id, thread_id) do nothing;

-- name: opened_thread
-- The thread, if it is this user's and was not deleted before. It is held: a deletion waits for what is written now,
-- and deletes that, too. Asked after open_thread, which may have waited for a deletion and seen nothing of it.
select t.thread_id from threads t
where t.tenant_id = app.tenant() and t.thread_id = $1 and t.user_id = $2
  and not exists (select from deleted_threads d where d.tenant_id = t.tenant_id and d.thread_id = t.thread_id)
for key share of t;

-- name: own_thread
-- The thread, if it is this user's.
select thread_id, user_id, name, metadata, tags, created_at, updated_at
from threads where tenant_id = app.tenant() and thread_id = $1 and user_id = $2;

-- name: update_thread
-- Name and tags when given; metadata is merged, a null removes its key.
update threads
set name = coalesce($3, name), tags = coalesce($4, tags),
    metadata = (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(metadata || $5)
                where value <> 'null'::jsonb)
where tenant_id = app.tenant() and thread_id = $1 and user_id = $2;

-- name: touch_thread
-- Something was said: the thread moves to the top of the list.
update threads set updated_at = greatest(updated_at, $3)
where tenant_id = app.tenant() and thread_id = $1 and user_id = $2;

-- name: delete_thread
-- The thread with everything in it; its id is kept, so that it is not opened again.
with gone as (
    delete from threads where tenant_id = app.tenant() and thread_id = $1 and user_id = $2 returning thread_id)
insert into deleted_threads (tenant_id, thread_id, deleted_at) select app.tenant(), thread_id, $3 from gone;

-- name: purge
-- Forget the ids of deleted threads that policies keep no longer, of all tenants.
select app.deleted_threads_purge($1, $2);

-- name: list_threads
-- The user's threads, newest message first: $2 pattern in name or messages, $3 feedback, $4/$5 after this one.
select t.thread_id, t.user_id, t.name, t.metadata, t.tags, t.created_at, t.updated_at
from threads t
where t.tenant_id = app.tenant() and t.user_id = $1
  and ($2::text is null or t.name ilike $2 or exists (
      select 1 from thread_entries e
      where e.tenant_id = t.tenant_id and e.thread_id = t.thread_id
        and e.kind in ('user_message', 'assistant_message') and e.output ilike $2))
  and ($3::integer is null or exists (
      select 1 from thread_feedback f
      where f.tenant_id = t.tenant_id and f.thread_id = t.thread_id and f.value = $3))
  and ($4::timestamptz is null or (t.updated_at, t.thread_id) < ($4, $5::text))
order by t.updated_at desc, t.thread_id desc limit $6;

-- name: save_entry
-- A new entry, or all of it anew; an id taken by another thread is left alone (0 rows).
insert into thread_entries (tenant_id, entry_id, thread_id, parent_id, kind, name, input, output, is_error, extra,
                            created_at, started_at, ended_at)
values (app.tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict (tenant_id, entry_id) do update
set parent_id = excluded.parent_id, kind = excluded.kind, name = excluded.name, input = excluded.input,
    output = excluded.output, is_error = excluded.is_error, extra = excluded.extra,
    started_at = coalesce(excluded.started_at, thread_entries.started_at),
    ended_at = coalesce(excluded.ended_at, thread_entries.ended_at)
where thread_entries.thread_id = excluded.thread_id;

-- name: entries
-- Everything said and done in a thread, oldest first.
select entry_id, thread_id, parent_id, kind, name, input, output, is_error, extra, created_at, started_at, ended_at
from thread_entries where tenant_id = app.tenant() and thread_id = $1
order by created_at, position;

-- name: thread_of_entry
-- Where an entry of this user is.
select e.thread_id from thread_entries e
join threads t on t.tenant_id = e.tenant_id and t.thread_id = e.thread_id
where e.tenant_id = app.tenant() and e.entry_id = $1 and t.user_id = $2;

-- name: delete_entry_elements
-- Files and cards of an entry.
delete from thread_elements where tenant_id = app.tenant() and thread_id = $1 and entry_id = $2;

-- name: delete_entry
-- An entry with what was thought of it.
delete from thread_entries where tenant_id = app.tenant() and thread_id = $1 and entry_id = $2;

-- name: recent_messages
-- The last messages of a thread with the names of their files, newest first; errors were never part of it.
select e.entry_id, e.kind, e.output,
       array(select l.name from thread_elements l
             where l.tenant_id = e.tenant_id and l.thread_id = e.thread_id and l.entry_id = e.entry_id
               and l.content is not null order by l.position) as attachments
from thread_entries e
where e.tenant_id = app.tenant() and e.thread_id = $1 and e.kind in ('user_message', 'assistant_message')
  and not e.is_error and e.entry_id <> $2
order by e.created_at desc, e.position desc limit $3;

-- name: favourites
-- Messages the user marked, newest first.
select e.entry_id, e.thread_id, e.parent_id, e.kind, e.name, e.input, e.output, e.is_error, e.extra,
       e.created_at, e.started_at, e.ended_at
from thread_entries e join threads t on t.tenant_id = e.tenant_id and t.thread_id = e.thread_id
where e.tenant_id = app.tenant() and t.user_id = $1 and e.extra @> '{"metadata": {"favorite": true}}'
order by e.created_at desc, e.position desc limit $2;

-- name: save_element
-- A new element, or its latest state; bytes once there are kept. An id of another thread is left alone (0 rows).
insert into thread_elements (tenant_id, element_id, thread_id, entry_id, kind, name, mime, props, extra, content, created_at)
values (app.tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (tenant_id, element_id) do update
set entry_id = coalesce(excluded.entry_id, thread_elements.entry_id), kind = excluded.kind, name = excluded.name,
    mime = excluded.mime, props = excluded.props, extra = excluded.extra,
    content = coalesce(excluded.content, thread_elements.content)
where thread_elements.thread_id = excluded.thread_id;

-- name: elements
-- Files (without their bytes) and cards of a thread.
select element_id, thread_id, entry_id, kind, name, mime, props, extra, content is not null as has_content
from thread_elements where tenant_id = app.tenant() and thread_id = $1 order by position;

-- name: element
-- One of them.
select element_id, thread_id, entry_id, kind, name, mime, props, extra, content is not null as has_content
from thread_elements where tenant_id = app.tenant() and thread_id = $1 and element_id = $2;

-- name: content
-- The bytes of one element.
select name, mime, content, encode(digest, 'hex') as digest from thread_elements
where tenant_id = app.tenant() and thread_id = $1 and element_id = $2 and content is not null;

-- name: attachment
-- The newest file of that name in the thread.
select name, mime, content, encode(digest, 'hex') as digest from thread_elements
where tenant_id = app.tenant() and thread_id = $1 and name = $2 and content is not null
order by position desc limit 1;

-- name: delete_element
-- One element.
delete from thread_elements where tenant_id = app.tenant() and thread_id = $1 and element_id = $2;

-- name: thread_of_element
-- Where an element of this user is.
select l.thread_id from thread_elements l
join threads t on t.tenant_id = l.tenant_id and t.thread_id = l.thread_id
where l.tenant_id = app.tenant() and l.element_id = $1 and t.user_id = $2;

-- name: save_feedback
-- One opinion per message, the last one counts; the id it had is kept.
insert into thread_feedback (tenant_id, entry_id, feedback_id, thread_id, value, comment, created_at)
values (app.tenant(), $1, $2, $3, $4, $5, $6)
on conflict (tenant_id, entry_id) do update set value = excluded.value, comment = excluded.comment
returning feedback_id;

-- name: feedback
-- What was thought of the messages of a thread.
select feedback_id, entry_id, value, comment from thread_feedback
where tenant_id = app.tenant() and thread_id = $1;

-- name: delete_feedback
-- Take an opinion back.
delete from thread_feedback f using threads t
where f.tenant_id = app.tenant() and f.feedback_id = $1
  and t.tenant_id = f.tenant_id and t.thread_id = f.thread_id and t.user_id = $2;

-- name: add_batch
-- Remember that a thread started these runs; asking twice changes nothing.
insert into thread_batches (tenant_id, batch_id, thread_id, user_id, label, created_at)
values (app.tenant(), $1, $2, $3, $4, $5) on conflict (tenant_id, thread_id, batch_id) do nothing;

-- name: batches_of_thread
-- Batches of one thread, newest first.
select batch_id, thread_id, label, created_at from thread_batches
where tenant_id = app.tenant() and user_id = $1 and thread_id = $2 order by created_at desc, batch_id limit $3;

-- name: batches_of_user
-- Batches of all threads of the user, newest first.
select batch_id, thread_id, label, created_at from thread_batches
where tenant_id = app.tenant() and user_id = $1 order by created_at desc, batch_id limit $2;
