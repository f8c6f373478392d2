-- What the tests read from Postgres' own catalog.

-- name: tenant_tables
-- Tables with a tenant_id, whether row-level security is on and forced, and their policies.
select c.relname as name, c.relrowsecurity as enabled, c.relforcerowsecurity as forced,
       array(select p.polname || ' to ' || (select string_agg(r.rolname, ',') from pg_roles r where r.oid = any(p.polroles))
                    || ': ' || coalesce(pg_get_expr(p.polqual, p.polrelid), '-')
                    || ' / ' || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '-')
             from pg_policy p where p.polrelid = c.oid order by p.polname) as policies
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'app') and c.relkind in ('r', 'p')
  and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
order by c.relname

-- name: shared_tables
-- Tables without a tenant_id, and whether the runtime role may do anything with them.
select c.relname as name,
       has_table_privilege('bailiwick_app', c.oid, 'select, insert, update, delete, truncate') as reachable
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'm')
  and not exists (select 1 from pg_attribute a
                  where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
order by c.relname

-- name: views
-- Views and materialised views: they would show rows with their owner's eyes.
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'app') and c.relkind in ('v', 'm')

-- name: roles
-- Rights of our roles that would defeat the fence.
select rolname as name, rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication as mighty,
       rolcanlogin as may_log_in,
       array(select g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid) as member_of
from pg_roles r where rolname like 'bailiwick%' order by rolname

-- name: owned_by_runtime_roles
-- Anything that a role owns which processes log in as.
with roles as (select unnest(array['bailiwick_app', 'bailiwick_lock']::regrole[]) as role)
select 'relation ' || relname as thing from pg_class join roles on relowner = role
union all
select 'function ' || proname from pg_proc join roles on proowner = role
union all
select 'schema ' || nspname from pg_namespace join roles on nspowner = role

-- name: creatable_schemas
-- Schemas in which a role that processes log in as could create something.
select nspname from pg_namespace
where has_schema_privilege('bailiwick_app', oid, 'create') or has_schema_privilege('bailiwick_lock', oid, 'create')

-- name: definers
-- Functions that run with their owner's rights.
select p.oid::regprocedure::text as name, pg_get_userbyid(p.proowner) as owner,
       coalesce(array_to_string(p.proconfig, ';'), '') as settings,
       exists (select 1 from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0) as open_to_all
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname in ('public', 'app') order by 1

-- name: definitions
-- The whole schema as sorted lines of text: columns, constraints, indexes, policies, functions, rights.
select line from (
    select format('column %s.%s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  a.attgenerated, pg_get_expr(d.adbin, d.adrelid)) as line
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped
    union all
    select format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(c.oid))
    from pg_constraint c join pg_namespace n on n.oid = c.connamespace where n.nspname in ('public', 'app')
    union all
    select format('index %s', indexdef) from pg_indexes where schemaname in ('public', 'app')
    union all
    select format('policy %s %s %s %s %s', tablename, policyname, roles, qual, with_check) from pg_policies
    where schemaname in ('public', 'app')
    union all
    select format('trigger %s', pg_get_triggerdef(t.oid)) from pg_trigger t
    join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where not t.tgisinternal and n.nspname in ('public', 'app')
    union all
    select format('function %s %s %s', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner), p.proacl)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('public', 'app') and p.prokind = 'f'
      and not exists (select 1 from pg_depend e where e.objid = p.oid and e.deptype = 'e')
    union all
    select format('table %s %s %s %s', c.relname, c.relacl, c.relrowsecurity, c.relforcerowsecurity)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'S')
) all_lines order by line
