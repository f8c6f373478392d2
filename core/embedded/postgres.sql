-- Statements of core/embedded/postgres.py, run as the owner of the cluster.

-- name: database_exists
-- Whether the database is there.
select exists (select 1 from pg_database where datname = $1);

-- name: create_database
-- The one database of an installation.
create database bailiwick;

-- name: vector_version
-- The version of pgvector that this server can install.
select default_version from pg_available_extensions where name = 'vector';
