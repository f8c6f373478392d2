-- Statements of core/db/migrate.py, run as the owner.

-- name: lock
-- One migration at a time; held until the connection closes.
select pg_advisory_lock(7300);

-- name: short_lock_timeout
-- A migration that cannot get its locks quickly gives up rather than queue everybody behind it.
set local lock_timeout = '5s';

-- name: set_password_argument
-- DO blocks take no parameters: hand role and password over as settings of this session.
select set_config('app.role', $1, false), set_config('app.password', $2, false);

-- name: login_role
-- The role named by the settings, able to log in and to nothing else; its password is set anew.
do $$
declare
    role     text := current_setting('app.role');
    password text := current_setting('app.password');
begin
    if not exists (select 1 from pg_roles where rolname = role) then
        execute format('create role %I login nosuperuser nocreatedb nocreaterole', role);
    end if;
    execute format('alter role %I password %L', role, password);
    execute format('grant connect on database %I to %I', current_database(), role);
    perform set_config('app.password', '', false);
end $$;

-- name: control_role_and_rights
-- The role that owns the control functions; what everybody may do in a new database, and nobody shall.
do $$
begin
    if not exists (select 1 from pg_roles where rolname = 'bailiwick_control') then
        create role bailiwick_control nologin nosuperuser;
    end if;
    if not pg_has_role(current_user, 'bailiwick_control', 'member') then
        execute format('grant bailiwick_control to %I', current_user);
    end if;
    revoke create on schema public from public;
    -- A temporary table would outlive its transaction on a pooled connection, and hide a real one from the next.
    execute format('revoke temporary on database %I from public', current_database());
end $$;

-- name: create_register
-- What was applied, with the checksum of its text.
create table if not exists public.migrations (name text primary key, checksum text not null, applied_at timestamptz not null default now());

-- name: applied
-- All applied migrations.
select name, checksum from public.migrations;

-- name: register
-- Remember one as applied.
insert into public.migrations (name, checksum) values ($1, $2);
