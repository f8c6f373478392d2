-- Roles, the tenant fence, organisations, people, keys.
--
-- Three roles besides the one that runs this file (the owner):
--   bailiwick_app      what every process logs in as; owns nothing, bypasses nothing
--   bailiwick_lock     holds the scheduler's lock on a direct connection; may connect, and nothing else
--   bailiwick_control  nobody logs in as it; it owns the few functions that must look across tenants
--                      (claim, wake, login, due schedules). Their bodies are the complete list of what
--                      the platform can do without a tenant.
--
-- The fence: app.fence('table') turns on forced row-level security with one policy for the tenant of
-- the transaction (setting app.tenant, made by core.db.tenant_transaction) and one for bailiwick_control.
-- No setting, no rows. A row of one tenant never hangs on a row of another: foreign keys between tenant tables
-- include tenant_id, since the check of a foreign key looks past row-level security.
--
-- Control functions are of two kinds. Those called on behalf of a tenant touch the tenant of the transaction only.
-- Those that look across tenants begin with app.outside(): inside a tenant's transaction they refuse.

create extension if not exists vector;
create schema if not exists app;
grant usage on schema app, public to bailiwick_app, bailiwick_control;
grant create on schema app to bailiwick_control;  -- a function can only be owned by who may create it
alter default privileges in schema public grant select, insert, update, delete on tables to bailiwick_control;
alter default privileges in schema public grant usage, select on sequences to bailiwick_app, bailiwick_control;

create function app.tenant() returns text language sql stable
    as $$ select nullif(current_setting('app.tenant', true), '') $$;

-- True outside a tenant's transaction; inside one it refuses.
create function app.outside() returns boolean language plpgsql stable as $$
begin
    if app.tenant() is not null then
        raise insufficient_privilege
            using message = 'This looks across tenants: call it outside a tenant''s transaction.';
    end if;
    return true;
end $$;

-- Fence a table. "rights" is what the runtime role may do inside its tenant.
create function app.fence(target regclass, rights text) returns void language plpgsql as $$
begin
    execute format('alter table %s enable row level security', target);
    execute format('alter table %s force row level security', target);
    execute format('create policy tenant on %s to bailiwick_app using (tenant_id = app.tenant()) '
                   'with check (tenant_id = app.tenant())', target);
    execute format('create policy control on %s to bailiwick_control using (true) with check (true)', target);
    if rights <> '' then
        execute format('grant %s on %s to bailiwick_app', rights, target);
    end if;
end $$;

-- Hand a function to bailiwick_control: it runs with that role's view, callable by the runtime role.
create function app.control(target regprocedure) returns void language plpgsql as $$
begin
    execute format('alter function %s owner to bailiwick_control', target);
    execute format('alter function %s security definer', target);
    execute format('alter function %s set search_path = public, app, pg_temp', target);
    execute format('revoke all on function %s from public', target);
    execute format('grant execute on function %s to bailiwick_app', target);
end $$;

create table tenants (
    tenant_id      text primary key check (tenant_id ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
    name           text not null,
    org_id         text not null,
    region         text not null,
    policy_version integer not null default 1,
    created_at     timestamptz not null
);
select app.fence('tenants', 'select');

-- Every policy a tenant ever had; tenants.policy_version points at the one in force.
create table policies (
    tenant_id  text not null references tenants,
    version    integer not null,
    document   jsonb not null,
    created_at timestamptz not null,
    created_by text not null,
    primary key (tenant_id, version)
);
select app.fence('policies', 'select');

create table users (
    user_id       text primary key,
    tenant_id     text not null references tenants,
    email         text not null,
    name          text not null,
    password_hash text not null,
    roles         text[] not null,
    -- Bumped whenever roles or password change; every session carries the version it was made under.
    role_version  integer not null default 1,
    disabled_at   timestamptz,
    created_at    timestamptz not null,
    unique (tenant_id, email),
    unique (tenant_id, user_id)
);
create index users_email on users (email);
select app.fence('users', '');
grant select (user_id, tenant_id, email, name, roles, role_version, disabled_at, created_at) on users to bailiwick_app;

create table sessions (
    token_hash   bytea primary key,
    tenant_id    text not null references tenants,
    user_id      text not null,
    role_version integer not null,
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    foreign key (tenant_id, user_id) references users (tenant_id, user_id)
);
create index sessions_user on sessions (tenant_id, user_id);
select app.fence('sessions', 'select, insert, delete');

create table api_keys (
    key_id      text primary key,
    tenant_id   text not null references tenants,
    secret_hash bytea not null,
    label       text not null,
    scopes      text[] not null,
    created_by  text not null,
    created_at  timestamptz not null,
    expires_at  timestamptz,
    revoked_at  timestamptz
);
create index api_keys_tenant on api_keys (tenant_id);
select app.fence('api_keys', 'select, insert');
grant update (revoked_at) on api_keys to bailiwick_app;

-- Failed logins per account and minute: the lock-out needs no tenant yet.
create table login_failures (
    email  text not null,
    minute timestamptz not null,
    count  integer not null,
    primary key (email, minute)
);

-- Identity: the only ways from a secret to a tenant.
create function app.login_candidates(p_email text)
returns table (tenant_id text, user_id text, name text, password_hash text, roles text[], role_version integer)
language sql stable as $$
    select u.tenant_id, u.user_id, u.name, u.password_hash, u.roles, u.role_version
    from users u where u.email = p_email and u.disabled_at is null and app.outside()
$$;
select app.control('app.login_candidates(text)');

-- Count an attempt as failed before its password is looked at, so that attempts made at once cannot outrun the
-- limit. False when it is one too many; that one is not counted, or an attacker could lock somebody out for ever.
create function app.login_attempt(p_email text, p_since timestamptz, p_limit integer, p_now timestamptz) returns boolean
language plpgsql as $$
declare counted bigint;
begin
    perform app.outside();
    insert into login_failures values (p_email, date_trunc('minute', p_now), 1)
    on conflict (email, minute) do update set count = login_failures.count + 1;
    select sum(count) into counted from login_failures
    where email = p_email and minute >= date_trunc('minute', p_since);
    if counted <= p_limit then return true; end if;
    perform app.login_succeeded(p_email, p_now);
    return false;
end $$;
select app.control('app.login_attempt(text, timestamptz, integer, timestamptz)');

-- The password was right: the attempt counted at that moment was no failure.
create function app.login_succeeded(p_email text, p_at timestamptz) returns void language sql as $$
    update login_failures set count = count - 1
    where app.outside() and email = p_email and minute = date_trunc('minute', p_at)
$$;
select app.control('app.login_succeeded(text, timestamptz)');

create function app.login_failures_forget(p_before timestamptz) returns void language sql as $$
    delete from login_failures where minute < p_before and app.outside()
$$;
select app.control('app.login_failures_forget(timestamptz)');

-- One row when the session is alive and its user still has the roles it was opened with.
create function app.session_identity(p_token_hash bytea, p_now timestamptz)
returns table (tenant_id text, user_id text, email text, name text, roles text[], role_version integer,
               expires_at timestamptz)
language sql stable as $$
    select u.tenant_id, u.user_id, u.email, u.name, u.roles, u.role_version, s.expires_at
    from sessions s join users u on u.user_id = s.user_id and u.tenant_id = s.tenant_id
    where app.outside() and s.token_hash = p_token_hash and s.expires_at > p_now
      and u.disabled_at is null and u.role_version = s.role_version
$$;
select app.control('app.session_identity(bytea, timestamptz)');

create function app.api_key_identity(p_key_id text, p_now timestamptz)
returns table (tenant_id text, secret_hash bytea, scopes text[])
language sql stable as $$
    select k.tenant_id, k.secret_hash, k.scopes from api_keys k
    where app.outside() and k.key_id = p_key_id and k.revoked_at is null
      and (k.expires_at is null or k.expires_at > p_now)
$$;
select app.control('app.api_key_identity(text, timestamptz)');

-- Sessions past their end, for housekeeping.
create function app.sessions_purge(p_now timestamptz) returns integer language sql as $$
    with gone as (delete from sessions where app.outside() and expires_at <= p_now returning 1)
    select count(*)::integer from gone
$$;
select app.control('app.sessions_purge(timestamptz)');
