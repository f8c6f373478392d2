-- Blobs: what is too large for a run's input, a step's result or an event, kept once and passed by reference.
--
-- The name of a blob is the SHA-256 of its content, so keeping the same content again, by a step that is tried again or
-- by somebody else of the tenant, stores nothing. Two tenants with the same content have a blob each, and neither can
-- tell from anything that the other has it.
--
--     (none) --put--> kept --put again--> kept (used_at is now) --retention passed since used_at, or removed--> (none)

create table blobs (
    tenant_id  text not null references tenants,
    blob_id    text not null,          -- blob_ and the SHA-256 of the content
    media_type text not null,
    size       bigint not null,        -- bytes
    content    bytea not null,
    created_by text not null,
    created_at timestamptz not null,
    used_at    timestamptz not null,   -- when it was last put
    primary key (tenant_id, blob_id)
);
-- Already compressed, most of it: do not try.
alter table blobs alter column content set storage external;
create index blobs_used on blobs (tenant_id, used_at);
select app.fence('blobs', 'select, insert, delete, update');

-- Bytes that each tenant keeps. The row makes its tenant's puts one after the other, so the limit is exact.
create table blob_totals (
    tenant_id text primary key references tenants,
    bytes     bigint not null check (bytes >= 0)
);
select app.fence('blob_totals', 'select, insert, update');

-- Delete what every tenant's policy keeps no longer. Up to p_limit blobs; how many. Tenant by tenant, its total before
-- its blobs, as a put locks them.
create function app.blobs_purge(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
    tenant record;
    gone   integer;
    freed  bigint;
    purged integer := 0;
begin
    perform app.outside();
    for tenant in
        select t.tenant_id, p_now - make_interval(days => (p.document ->> 'blob_retention_days')::integer) as since
        from tenants t
        join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
        where exists (select from blobs b where b.tenant_id = t.tenant_id
                      and b.used_at < p_now - make_interval(days => (p.document ->> 'blob_retention_days')::integer))
        order by t.tenant_id
    loop
        exit when purged >= p_limit;
        perform from blob_totals where tenant_id = tenant.tenant_id for update;
        with old as (
            delete from blobs b where b.tenant_id = tenant.tenant_id and b.blob_id in (
                select o.blob_id from blobs o where o.tenant_id = tenant.tenant_id and o.used_at < tenant.since
                order by o.used_at limit p_limit - purged)
            returning b.size
        )
        select count(*), coalesce(sum(size), 0) into gone, freed from old;
        update blob_totals set bytes = bytes - freed where tenant_id = tenant.tenant_id;
        purged := purged + gone;
    end loop;
    return purged;
end $$;
select app.control('app.blobs_purge(timestamptz, integer)');
