-- Schedules and pollers; core/db/migrations/0007_schedules.sql tells how next_at, retry_at and fires work.

-- name: insert_schedule
-- A new schedule, unless the tenant has $11 already.
insert into schedules (schedule_id, tenant_id, name, cron, timezone, workflow, input, next_at, user_id, created_by,
                       created_at, updated_at)
select $1, app.tenant(), $2, $3, $4, $5, $6, $7, $8, $9, $10, $10
where (select count(*) from schedules where tenant_id = app.tenant()) < $11;

-- name: schedules
-- All schedules, oldest first.
select schedule_id, name, cron, timezone, workflow, input, paused, version, next_at, retry_at, last_due_at,
       last_run_id, last_error, user_id, created_by, created_at, updated_at
from schedules where tenant_id = app.tenant() order by created_at, schedule_id;

-- name: schedule
-- One schedule.
select schedule_id, name, cron, timezone, workflow, input, paused, version, next_at, retry_at, last_due_at,
       last_run_id, last_error, user_id, created_by, created_at, updated_at
from schedules where tenant_id = app.tenant() and schedule_id = $1;

-- name: schedule_for_update
-- One schedule, which nobody else edits until the transaction ends.
select schedule_id, name, cron, timezone, workflow, input, paused, version, next_at, retry_at, last_due_at,
       last_run_id, last_error, user_id, created_by, created_at, updated_at
from schedules where tenant_id = app.tenant() and schedule_id = $1 for update;

-- name: update_schedule
-- A new version of a schedule.
update schedules
set name = $2, cron = $3, timezone = $4, workflow = $5, input = $6, paused = $7, next_at = $8, retry_at = $9,
    updated_at = $10, version = version + 1
where tenant_id = app.tenant() and schedule_id = $1;

-- name: delete_schedule
-- A schedule and what became of its occurrences. The runs stay.
delete from schedules where tenant_id = app.tenant() and schedule_id = $1;

-- name: insert_fire
-- What became of an occurrence; the first record of it stands.
insert into schedule_fires (schedule_id, due_at, tenant_id, fired_at, missed_since, run_id, error)
select $1, $2, app.tenant(), $3, $4, $5, $6
where exists (select from schedules where tenant_id = app.tenant() and schedule_id = $1)
on conflict (schedule_id, due_at) do nothing;

-- name: move_on
-- After an occurrence: on to the next, unless an edit has set another time since ($2: the time as it was).
update schedules
set next_at = case when next_at = $2 then $3 else next_at end,
    retry_at = case when next_at = $2 then null else retry_at end,
    last_due_at = $4, last_run_id = $5, last_error = $6
where tenant_id = app.tenant() and schedule_id = $1;

-- name: try_again
-- The occurrence started nothing yet; try again at $3.
update schedules set retry_at = $3, last_error = $4
where tenant_id = app.tenant() and schedule_id = $1 and next_at = $2;

-- name: fires
-- The latest occurrences of a schedule.
select due_at, fired_at, missed_since, run_id, error from schedule_fires
where tenant_id = app.tenant() and schedule_id = $1 order by due_at desc limit $2;

-- name: insert_poller
-- A new poller, unless the tenant has $11 already.
insert into pollers (poller_id, tenant_id, name, url, interval_s, workflow, input, next_at, user_id, created_by,
                     created_at, updated_at)
select $1, app.tenant(), $2, $3, $4, $5, $6, $7, $8, $9, $10, $10
where (select count(*) from pollers where tenant_id = app.tenant()) < $11;

-- name: pollers
-- All pollers, oldest first.
select poller_id, name, url, interval_s, workflow, input, paused, version, next_at, failures, last_status,
       last_error, last_polled_at, last_changed_at, last_run_id, etag, last_modified, content_hash, entry_ids,
       user_id, created_by, created_at, updated_at
from pollers where tenant_id = app.tenant() order by created_at, poller_id;

-- name: poller
-- One poller.
select poller_id, name, url, interval_s, workflow, input, paused, version, next_at, failures, last_status,
       last_error, last_polled_at, last_changed_at, last_run_id, etag, last_modified, content_hash, entry_ids,
       user_id, created_by, created_at, updated_at
from pollers where tenant_id = app.tenant() and poller_id = $1;

-- name: poller_for_update
-- One poller, which nobody else edits until the transaction ends.
select poller_id, name, url, interval_s, workflow, input, paused, version, next_at, failures, last_status,
       last_error, last_polled_at, last_changed_at, last_run_id, etag, last_modified, content_hash, entry_ids,
       user_id, created_by, created_at, updated_at
from pollers where tenant_id = app.tenant() and poller_id = $1 for update;

-- name: update_poller
-- A new version of a poller. Another address ($10) forgets what was seen at the old one.
update pollers
set name = $2, url = $3, interval_s = $4, workflow = $5, input = $6, paused = $7, next_at = $8, updated_at = $9,
    failures = 0, version = version + 1,
    etag = case when $10 then null else etag end,
    last_modified = case when $10 then null else last_modified end,
    content_hash = case when $10 then null else content_hash end,
    entry_ids = case when $10 then '{}'::text[] else entry_ids end
where tenant_id = app.tenant() and poller_id = $1;

-- name: delete_poller
-- A poller. Its runs stay.
delete from pollers where tenant_id = app.tenant() and poller_id = $1;

-- name: look_again_at
-- The next look, unless paused; nothing that was seen changes.
update pollers set next_at = $2 where tenant_id = app.tenant() and poller_id = $1 and not paused;

-- name: record_look
-- What a look found. Nothing is written when the poller was edited meanwhile ($2: the version that looked).
update pollers
set next_at = case when paused then null else $3::timestamptz end, last_polled_at = $4, last_status = $5,
    last_error = $6, failures = $7, etag = $8, last_modified = $9, content_hash = $10, entry_ids = $11,
    last_run_id = coalesce($12, last_run_id),
    last_changed_at = case when $5 = 'changed' then $4 else last_changed_at end
where tenant_id = app.tenant() and poller_id = $1 and version = $2;

-- name: upcoming
-- What the leading scheduler has to do before a moment, soonest first, of all tenants.
select kind, id, tenant_id, due_at from app.upcoming($1, $2);
