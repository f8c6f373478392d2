-- name: touch
-- A blob that is there already is kept as if it came now; no row when it is not. It keeps its first media type.
update blobs set used_at = $2 where tenant_id = app.tenant() and blob_id = $1 returning media_type, size;

-- name: count_bytes
-- Count bytes to the tenant's total, or off it; the row serialises puts, so the limit is exact.
insert into blob_totals as t (tenant_id, bytes) values (app.tenant(), greatest($1, 0))
on conflict (tenant_id) do update set bytes = t.bytes + $1
returning bytes;

-- name: insert_blob
-- A blob that is not there.
insert into blobs (tenant_id, blob_id, media_type, size, content, created_by, created_at, used_at)
values (app.tenant(), $1, $2, $3, $4, $5, $6, $6);

-- name: blob
-- A blob and its content.
select blob_id, media_type, size, content from blobs where tenant_id = app.tenant() and blob_id = $1;

-- name: delete_blob
-- Remove a blob; its size, no row when there is none.
delete from blobs where tenant_id = app.tenant() and blob_id = $1 returning size;

-- name: total
-- Bytes that the tenant keeps.
select coalesce(max(bytes), 0) from blob_totals where tenant_id = app.tenant();

-- name: purge
-- What policies keep no longer, of all tenants.
select app.blobs_purge($1, $2);
