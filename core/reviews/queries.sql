-- name: request
-- Ask for a decision; asking again for the same run and step changes nothing, unless it was closed undecided and
-- ($16) the step begins anew, or its decision was used.
insert into reviews (review_id, tenant_id, run_id, step, pool, role, shared, priority, title, evidence, choices, form,
                     needed, of, fallback, chain, expiry, expiry_verdict, state, created_at, due_at, next_at)
values ($1, app.tenant(), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $17, $18, 'open', $19, $20,
        $20)
on conflict (run_id, step) do update
    set state = 'open', pool = excluded.pool, role = excluded.role, shared = excluded.shared,
        priority = excluded.priority, title = excluded.title, evidence = excluded.evidence,
        choices = excluded.choices, form = excluded.form, needed = excluded.needed, of = excluded.of,
        fallback = excluded.fallback, chain = excluded.chain, level = 0, expiry = excluded.expiry,
        expiry_verdict = excluded.expiry_verdict, claims = '[]', votes = '[]', verdict = null, comment = null,
        answer = null, decided_by = null, created_at = excluded.created_at, due_at = excluded.due_at,
        next_at = excluded.next_at, decided_at = null, used = false
    where reviews.state = 'cancelled' or (reviews.state = 'expired' and $16) or reviews.used
returning review_id;

-- name: used
-- The decision at a step was acted on.
update reviews set used = true where tenant_id = app.tenant() and run_id = $1 and step = $2 and state = 'decided';

-- name: by_step
-- The review a run asked for at a step.
select state, verdict, comment, decided_by, answer from reviews where run_id = $1 and step = $2 for update;

-- name: open
-- Open reviews, the most urgent first.
select v.*, r.thread_id from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and v.state = 'open'
order by v.due_at, v.review_id limit $1;

-- name: recent
-- Reviews of any state, newest first.
select v.*, r.thread_id from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant()
order by v.created_at desc, v.review_id limit $1;

-- name: listed
-- Reviews after optional filters: state, pool, run, due before. Open ones first, the most urgent first.
select v.*, r.thread_id from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and ($1::text is null or v.state = $1) and ($2::text is null or v.pool = $2)
  and ($3::text is null or v.run_id = $3) and ($4::timestamptz is null or v.due_at <= $4)
order by v.state <> 'open', case when v.state = 'open' then v.due_at end, v.created_at desc, v.review_id limit $5;

-- name: by_id
-- One review.
select v.*, r.thread_id from reviews v join runs r on r.run_id = v.run_id
where v.tenant_id = app.tenant() and v.review_id = $1;

-- name: lock
-- One review, for whoever is about to change it.
select * from reviews where tenant_id = app.tenant() and review_id = $1 for update;

-- name: asker
-- Who is behind a run: the person, what submitted it (of a schedule, poller or trigger: what made that), and who made the
-- key that did. A child is submitted by a run: it is asked who submitted the one above all.
select r.thread_id, r.user_id, coalesce(m.created_by, e.data ->> 'actor') as submitted_by, k.created_by as key_of
from runs r
left join run_events e on e.tenant_id = r.tenant_id and e.run_id = coalesce(r.ancestors[1], r.run_id) and e.seq = 1
left join lateral (
    select s.created_by from schedules s
    where s.tenant_id = r.tenant_id and s.schedule_id = split_part(e.data ->> 'actor', ':', 2)
    union all
    select p.created_by from pollers p
    where p.tenant_id = r.tenant_id and p.poller_id = split_part(e.data ->> 'actor', ':', 2)
    union all
    select t.created_by from triggers t
    where t.tenant_id = r.tenant_id and t.trigger_id = split_part(e.data ->> 'actor', ':', 2)
) m on true
left join api_keys k on coalesce(m.created_by, e.data ->> 'actor') = 'api_key:' || k.key_id
where r.tenant_id = app.tenant() and r.run_id = $1;

-- name: key_of
-- Who made an API key.
select created_by from api_keys where tenant_id = app.tenant() and key_id = $1;

-- name: colleague
-- The roles of somebody of the tenant who may log in.
select roles from users where tenant_id = app.tenant() and user_id = $1 and disabled_at is null;

-- name: deciders
-- People of the tenant who have one of these roles and may log in.
select user_id, name from users
where tenant_id = app.tenant() and disabled_at is null and roles && $1 order by name, user_id;

-- name: save
-- What an act has made of a review.
update reviews set state = $2, pool = $3, role = $4, level = $5, next_at = $6, claims = $7, votes = $8, verdict = $9,
                   comment = $10, answer = $11, decided_by = $12, decided_at = $13
where tenant_id = app.tenant() and review_id = $1;

-- name: tell
-- The next event of the run that asked.
with counted as (
    update runs set event_seq = event_seq + 1 where run_id = $1 and tenant_id = app.tenant() returning event_seq
)
insert into run_events (tenant_id, run_id, seq, at, kind, data)
select app.tenant(), $1, event_seq, $2, 'review', $3 from counted;

-- name: next_breach
-- When the next open review of any tenant must escalate or expire.
select app.reviews_next();

-- name: due
-- Open reviews of all tenants that must escalate or expire now, the longest first.
select tenant_id, review_id from app.reviews_due($1, $2);

-- name: shared_open
-- Open cases of the shared pools, of all tenants, for people of the platform.
select (s.review).*, null::text as thread_id, s.tenant_name from app.shared_reviews($1, $2) s;

-- name: shared_decided
-- Cases of the shared pools that somebody of the platform decided, newest first.
select (s.review).*, null::text as thread_id, s.tenant_name from app.shared_reviews_decided($1, $2) s;

-- name: shared_of
-- Whose a case of a shared pool is.
select app.shared_review_tenant($1);
