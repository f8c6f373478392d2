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

-- name: state
-- Where the tenant's chain begins and ends, what is not sealed yet, and what stands outside of it.
select removed_seq, removed_hash, head_seq, head_hash, unsealed, stray, explained from app.audit_state();

-- name: stretch
-- How much of the chain fits, from the entry after $1 with hash $2 until $3, and the first entry that does not.
select fitting, last_seq, last_hash, broken_seq, fault from app.audit_stretch($1, $2, $3, $4);

-- name: entry
-- The entry of a number.
select tenant_id, at, actor, act, subject, before, after, policy_version, seq
from audit where tenant_id = app.tenant() and seq = $1;

-- name: sealed_hash
-- The hash of the entry of a number.
select hash from audit where tenant_id = app.tenant() and seq = $1;

-- name: expired
-- Tenants with entries that their policy keeps no longer.
select tenant_id from app.audit_expired($1);

-- name: expire
-- Remove the oldest entries of the tenant that its policy keeps no longer; no row when there is none.
select removed, removed_seq, removed_hash from app.audit_expire($1, $2);
