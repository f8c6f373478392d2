-- Routes of new runs to versions: core/db/migrations/0021_versions.sql tells the story.

-- name: routes
-- All routes.
select workflow, base, before, canary, percent, tenants from app.version_routes();

-- name: route
-- One route, to be changed in this transaction.
select workflow, base, before, canary, percent, tenants from app.op_version_route($1);

-- name: set_route
-- Put a route in force; base null: none.
select app.op_version_route_set($1, $2, $3, $4, $5, $6, $7, $8);

-- name: versions
-- Open runs and live workers of each version.
select workflow, version, queued, running, waiting, oldest_at, workers from app.op_versions($1, $2);
