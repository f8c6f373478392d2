-- name: ours
-- How many runs have ended well, when the first of them was claimed and the last one ended.
select count(*) as ended, extract(epoch from min(started_at))::float8 as first,
       extract(epoch from max(finished_at))::float8 as last
from runs where state = 'succeeded' and submitted_at >= to_timestamp($1);

-- name: plain
-- The same of the peer.
select count(*) as ended, min(started_at_epoch_ms) / 1000.0::float8 as first, max(completed_at) / 1000.0::float8 as last
from dbos.workflow_status
where status = 'SUCCESS' and name = 'floor' and created_at >= 1000 * $1::float8;
