-- name: append
-- An act, unsealed: no lock, so that writers never wait for each other.
insert into audit (tenant_id, at, actor, act, subject, before, after, policy_version)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: recent
-- The newest acts of the tenant.
select tenant_id, at, actor, act, subject, before, after, policy_version, seq
from audit where tenant_id = app.tenant() order by at desc, entry_id desc limit $1;

-- name: pending
-- Tenants that have something to seal.
select tenant_id from app.audit_pending();

-- name: seal
-- Seal a batch of one tenant's entries; the number sealed.
select app.audit_seal($1, $2);

-- name: broken
-- The first entry that breaks the tenant's chain; null when it is whole.
select app.audit_broken($1);
