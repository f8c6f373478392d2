-- What the scheduler asks for itself; everything else it asks goes through the services of core.

-- name: census
-- Every tenant now, and what ended between $1 (exclusive) and $2; $3 is now.
select * from app.census($1, $2, $3);

-- name: census_reviews
-- Open reviews per tenant, pool and priority class.
select * from app.census_reviews($1);
