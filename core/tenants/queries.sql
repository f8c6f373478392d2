-- name: login_candidates
-- Every account with this e-mail, in whichever tenant.
select tenant_id, user_id, name, password_hash, roles, role_version from app.login_candidates($1);

-- name: login_attempt
-- Count an attempt as failed; false: one too many since a moment.
select app.login_attempt($1, $2, $3, $4);

-- name: login_succeeded
-- Take back what was counted at a moment.
select app.login_succeeded($1, $2);

-- name: session_identity
-- Who a session belongs to, if it is alive and its user's roles have not changed since.
select tenant_id, user_id, email, name, roles, role_version, expires_at from app.session_identity($1, $2);

-- name: insert_session
-- A new session.
insert into sessions (token_hash, tenant_id, user_id, role_version, created_at, expires_at)
values ($1, $2, $3, $4, $5, $6);

-- name: delete_session
-- Log out.
delete from sessions where token_hash = $1;

-- name: names
-- What people of the tenant are called.
select user_id, name from users where tenant_id = app.tenant() and user_id = any($1);

-- name: api_key_identity
-- What a key may do, if it is valid.
select tenant_id, secret_hash, scopes from app.api_key_identity($1, $2);

-- name: insert_api_key
-- A new key.
insert into api_keys (key_id, tenant_id, secret_hash, label, scopes, created_by, created_at)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: list_api_keys
-- All keys of the tenant, without secrets.
select key_id, label, scopes, created_at, revoked_at from api_keys
where tenant_id = app.tenant() order by created_at desc;

-- name: revoke_api_key
-- A revoked key stays listed.
update api_keys set revoked_at = $2 where key_id = $1 and revoked_at is null;

-- name: tenant_policy
-- A tenant and its policy in force.
select tenant_id, name, org_id, region, policy_version, document, paused, draining from app.tenant_policy($1);

-- name: tenant_list
-- All tenants.
select tenant_id, name, org_id, region, policy_version, document, paused, draining from app.tenant_list();

-- name: tenant_create
-- False when it exists already.
select app.tenant_create($1, $2, $3, $4, $5, $6, $7);

-- name: policy_change
-- The new policy version; null when another one than $2 is in force.
select app.tenant_policy_change($1, $2, $3, $4, $5);

-- name: steer
-- Stop or go on claiming a tenant's runs; stop or go on admitting them. Null: as it was.
select app.queue_steer($1, $2, $3, $4);

-- name: platform_cap
-- Set the most slots that may be held on the whole platform; what it was.
select app.queue_platform_cap($1);

-- name: user_create
-- False when the e-mail is taken in that tenant.
select app.user_create($1, $2, $3, $4, $5, $6, $7);

-- name: user_change
-- Other roles, or no access; false when there is nobody of this id.
select app.user_change($1, $2, $3, $4, $5);

-- name: purge_sessions
-- Remove sessions that have ended; how many.
select app.sessions_purge($1);

-- name: forget_login_failures
-- Remove failed logins before a moment.
select app.login_failures_forget($1);
