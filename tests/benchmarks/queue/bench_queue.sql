-- All that the benchmarks of the queue know of its tables. Run as the owner, except where a comment says so.

-- name: tenants
-- Tenants $1 with the policies of the queue $2 (JSON), made at $3.
with made as (
    insert into tenants (tenant_id, name, org_id, region, created_at)
    select id, id, id, 'us-east-1', $3::timestamptz from unnest($1::text[]) id
    returning tenant_id
), ruled as (
    -- Runs here are killed as often as it takes: none is to be given up.
    insert into policies (tenant_id, version, document, created_at, created_by)
    select m.tenant_id, 1, p.policy || '{"max_recoveries": 1000000}', $3, 'bench'
    from made m join unnest($1::text[], $2::jsonb[]) as p(tenant_id, policy) using (tenant_id)
)
select count(app.queue_policy(m.tenant_id, p.policy, $3))
from made m join unnest($1::text[], $2::jsonb[]) as p(tenant_id, policy) using (tenant_id);

-- name: runs
-- Runs $1 of tenants $2, workflows $3, submitted at $4; not in the queue yet.
insert into runs (run_id, tenant_id, workflow, version, lane, state, source, request_hash, input, policy_version,
                  budget_microusd, submitted_at, queued_at)
select run_id, tenant_id, workflow, '1', 1, 'queued', 'api', '', '{}', 1, 0, at, at
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as r(run_id, tenant_id, workflow, at);

-- name: in_tenant
-- From here on the transaction is this tenant's ($1); '': nobody's. As the runtime role.
select set_config('app.tenant', $1, true);

-- name: without_checks
-- A load of rows that are known to fit together.
set session_replication_role = replica;

-- name: with_checks
-- After the load.
set session_replication_role = origin;

-- name: statistics
-- What autovacuum would find out within a minute of the load.
vacuum analyze;

-- name: backlog_runs
-- $2 queued runs for each of the tenants $1, of workflow $3, queued at $5, that last $4 seconds within a tenth.
insert into runs (run_id, tenant_id, workflow, version, lane, state, source, request_hash, input, policy_version,
                  budget_microusd, submitted_at, queued_at)
select t || '/' || n, t, $3, '1', 1, 'queued', 'api', '',
       jsonb_build_object('seconds', $4::float8 * (0.9 + 0.0002 * (n * 7919 % 1000))), 1, 0, $5, $5
from unnest($1::text[]) t cross join generate_series(1, $2::integer) n;

-- name: backlog_flows
-- The flows of the same, and what their tenants count.
with flows as (
    insert into queue_flows (tenant_id, lane, workflow, code, user_key, fresh, queued, head_rank, virtual_time)
    select t, 1, $3, $3 || '@1', '', true, $2, (extract(epoch from $4::timestamptz) * 1e6)::bigint + 1, 0 from unnest($1::text[]) t
)
update queue_tenants q set queued = q.queued + $2, virtual_time = greatest(q.virtual_time, p.virtual_time)
from queue_platform p where q.tenant_id = any($1::text[]);

-- name: backlog_entries
-- The entries of the same.
insert into queue_entries (run_id, tenant_id, flow_id, rank, capped_s, paused_s, no_worker_s)
select f.tenant_id || '/' || n, f.tenant_id, f.flow_id, (extract(epoch from $4::timestamptz) * 1e6)::bigint + n, 0, 0, 0
from queue_flows f cross join generate_series(1, $2::integer) n
where f.tenant_id = any($1::text[]) and f.workflow = $3;

-- name: all_ended
-- Whether all runs submitted since $2 have ended, those of $1 aside.
select not exists (select from runs where tenant_id <> $1 and submitted_at >= $2
                   and state not in ('succeeded', 'failed', 'cancelled'));

-- name: waits
-- Of the runs submitted from $3 seconds after $2 on, those of $1 aside: seconds in the queue, and to the first line.
select extract(epoch from u.claimed_at - u.queued_at)::float8 as waited_s,
       (r.output ->> 'began')::float8 - extract(epoch from r.submitted_at)::float8 as started_s
from runs r join slot_uses u on u.run_id = r.run_id
where r.tenant_id <> $1 and r.submitted_at >= $2::timestamptz + make_interval(secs => $3::float8);

-- name: busy_seconds
-- Seconds for which slots were held, from $3 seconds after $1 to $2.
with held as (
    select claimed_at, released_at from slot_uses union all select claimed_at, $2::timestamptz from slots
), bounds as (
    select $1::timestamptz + make_interval(secs => $3::float8) as since
)
select coalesce(sum(extract(epoch from least(h.released_at, $2) - greatest(h.claimed_at, b.since))), 0)::float8
from held h, bounds b where h.released_at > b.since and h.claimed_at < $2;

-- name: peer_enqueue
-- Runs of the peer with ids $4 that sleep $5 seconds, all at once, in queue $1 for version $2 of application $3.
select count(dbos.enqueue_workflow(
    workflow_name => 'nap', queue_name => $1, app_version => $2, application_name => $3, workflow_id => id,
    positional_args => array[to_json(seconds)]))
from unnest($4::text[], $5::float8[]) as n(id, seconds);

-- name: peer_ended
-- Whether the peer has ended a run of this id.
select exists (select from dbos.workflow_status where workflow_uuid = $1 and status = 'SUCCESS');

-- name: peer_runs
-- The peer's runs that have started, and after how many seconds.
select workflow_uuid as id, (started_at_epoch_ms - created_at) / 1000.0::float8 as waited_s
from dbos.workflow_status where started_at_epoch_ms is not null and queue_name = $1;

-- name: witnesses
-- A row for each end of a run, and one for each slot that a tenant got beyond its cap.
create table bench_ends (run_id text not null, worker_id text not null);
create table bench_over (tenant_id text not null, held bigint not null);
grant insert on bench_ends to bailiwick_app;
create function bench_count() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into bench_over
    select q.tenant_id, count(*) from queue_tenants q join slots s on s.tenant_id = q.tenant_id
    where q.tenant_id = new.tenant_id group by q.tenant_id, q.cap having count(*) > q.cap;
    return null;
end $$;
create trigger bench_count after insert on slots for each row execute function bench_count();

-- name: end_runs
-- Runs $1 have ended well at worker $2. As the runtime role, in the transaction that released their slots.
with ended as (
    update runs set state = 'succeeded', finished_at = queued_at where run_id = any($1) returning run_id
)
insert into bench_ends select run_id, $2 from ended;

-- name: damage
-- Claims, runs that ended, slots beyond a cap, runs that neither ended nor are queued nor hold a slot, runs that ended
-- twice, and wrong counts of the queue.
select (select sum(attempt) from runs)::integer as claims,
       (select count(*) from runs where state = 'succeeded')::integer as ended,
       (select count(*) from bench_over)::integer as over,
       (select count(*) from runs r where state <> 'succeeded'
          and not exists (select from queue_entries e where e.run_id = r.run_id)
          and not exists (select from slots s where s.run_id = r.run_id))::integer as lost,
       (select count(*) from (select from bench_ends group by run_id having count(*) > 1) twice)::integer as duplicated,
       (select count(*) from app.queue_faults())::integer as faults;
