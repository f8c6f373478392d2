-- The event log of a run, as those who follow it read it.

-- name: page
-- Where a run stands and what happened to it after a position, of one moment: a final state comes with the last event.
-- One row without an event (seq null) when there is none.
select r.state, r.user_id, r.workflow, r.event_seq, e.seq, e.at, e.kind, e.data
from runs r
left join lateral (
    select l.seq, l.at, l.kind, l.data from run_events l where l.run_id = r.run_id and l.seq > $2 order by l.seq limit $3
) e on true
where r.tenant_id = app.tenant() and r.run_id = $1
order by e.seq;

-- name: forget_said
-- What runs said while they executed, older than a moment; how many events were forgotten.
select app.forget_said($1, $2);
