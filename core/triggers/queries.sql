-- Triggers; core/db/migrations/0012_triggers.sql tells how an event starts runs.

-- name: insert_trigger
-- A new trigger, unless the tenant has $10 already.
insert into triggers (trigger_id, tenant_id, kind, name, event, workflow, input, user_id, created_by, created_at,
                      updated_at)
select $1, app.tenant(), $2, $3, $4, $5, $6, $7, $8, $9, $9
where (select count(*) from triggers where tenant_id = app.tenant()) < $10;

-- name: triggers
-- All triggers, oldest first.
select trigger_id, kind, name, event, workflow, input, paused, version, secret_version, last_fired_at, last_run_id,
       last_error, user_id, created_by, created_at, updated_at
from triggers where tenant_id = app.tenant() order by created_at, trigger_id;

-- name: trigger
-- One trigger.
select trigger_id, kind, name, event, workflow, input, paused, version, secret_version, last_fired_at, last_run_id,
       last_error, user_id, created_by, created_at, updated_at
from triggers where tenant_id = app.tenant() and trigger_id = $1;

-- name: trigger_for_update
-- One trigger, which nobody else edits until the transaction ends.
select trigger_id, kind, name, event, workflow, input, paused, version, secret_version, last_fired_at, last_run_id,
       last_error, user_id, created_by, created_at, updated_at
from triggers where tenant_id = app.tenant() and trigger_id = $1 for update;

-- name: update_trigger
-- A new version of a trigger.
update triggers
set name = $2, event = $3, workflow = $4, input = $5, paused = $6, secret_version = $7, updated_at = $8,
    version = version + 1
where tenant_id = app.tenant() and trigger_id = $1;

-- name: delete_trigger
-- A trigger and what it was still to start. Its runs stay.
delete from triggers where tenant_id = app.tenant() and trigger_id = $1;

-- name: forget_events
-- What it was still to start, it starts no more.
delete from trigger_events where tenant_id = app.tenant() and trigger_id = $1;

-- name: record_fire
-- What became of a webhook or event.
update triggers set last_fired_at = $2, last_run_id = coalesce($3, last_run_id), last_error = $4
where tenant_id = app.tenant() and trigger_id = $1;

-- name: webhook
-- Whose a webhook is, and which of its secrets is in force.
select tenant_id, secret_version from app.webhook($1);

-- name: to_start
-- An event whose run is to be started by now ($4).
select e.payload from trigger_events t
join events e on e.tenant_id = t.tenant_id and e.name = t.name and e.key = t.key
where t.tenant_id = app.tenant() and t.trigger_id = $1 and t.name = $2 and t.key = $3 and t.due_at <= $4;

-- name: started
-- The event has been dealt with.
delete from trigger_events where tenant_id = app.tenant() and trigger_id = $1 and name = $2 and key = $3;

-- name: postpone
-- Everything that a trigger was to start by now ($3) is tried again at $2.
update trigger_events set due_at = $2 where tenant_id = app.tenant() and trigger_id = $1 and due_at <= $3;

-- name: any_to_start
-- Whether an event has runs to start.
select exists (select from trigger_events where tenant_id = app.tenant() and name = $1 and key = $2);

-- name: next_due
-- When the next run of an event is to be started, in whichever tenant.
select app.trigger_events_next();

-- name: due
-- Runs of events to be started now, in all tenants.
select tenant_id, trigger_id, name, key from app.trigger_events_due($1, $2);
