-- Money and the record of acts.
--
-- Ledger: append-only entries in micro-USD. A step reserves its estimate under a key, then settles the same
-- key once with what it really cost (0 releases it). Accounts hold the running sums, one for the month and
-- one for each run; reserved + spent <= limit is checked when money is reserved, never later, so work that
-- was begun can always be paid. What must be done whatever it costs (an undo) is reserved beyond the limit. Same key
-- again: nothing happens. A crash between the two leaves a reservation, which the next attempt of the step settles at 0,
-- or housekeeping when nobody will try again.
-- A child run's money is its ancestors' too: it is promised and spent on its own account and on the account of every
-- run above it, so that a run's budget is the ceiling of its whole family; on the month's account it counts once.
-- Lock order: the month's account, then those of the runs from the root of the family down. So a tenant's entries are
-- written one after the other, and those of two months (a month ends while steps work) do not wait in a ring.
--
-- Audit: entries are appended unsealed (no lock, no contention); sealing gives them, in order, a number and
-- the hash of their content and of the entry before. Changing or removing a sealed entry breaks the chain. Entries
-- older than the policy's retention are removed from the front: the head keeps the number and the hash of the last
-- one removed, at which the chain now begins, and the removal is itself an act in the audit.

create table budget_accounts (
    tenant_id         text not null references tenants,
    account           text not null,                 -- 'month:2026-11' or 'run:run_…'
    limit_microusd    bigint not null check (limit_microusd >= 0),
    reserved_microusd bigint not null default 0 check (reserved_microusd >= 0),
    spent_microusd    bigint not null default 0 check (spent_microusd >= 0),
    primary key (tenant_id, account)
);
select app.fence('budget_accounts', 'select');

create table ledger (
    entry_id        bigint generated always as identity primary key,
    tenant_id       text not null references tenants,
    key             text collate "C" not null,
    kind            text not null check (kind in ('reserve', 'settle')),
    run_id          text,
    month           text not null,
    amount_microusd bigint not null check (amount_microusd >= 0),
    model           text,
    at              timestamptz not null,
    unique (tenant_id, key, kind)
);
create index ledger_run on ledger (tenant_id, run_id) where run_id is not null;
select app.fence('ledger', 'select');
revoke update, delete on ledger from bailiwick_control;

-- The reservations that are not settled yet: few rows, however long the ledger grows. Keys are compared byte by
-- byte whatever the database's language, or a prefix would not be a range.
create table reservations (
    tenant_id text not null references tenants,
    key       text collate "C" not null,
    run_id    text,
    at        timestamptz not null,
    primary key (tenant_id, key)
);
create index reservations_age on reservations (at);
select app.fence('reservations', 'select');

-- The accounts on which a run's money counts, in the order in which they are locked: its ancestors', its own.
create function app.run_accounts(p_run_id text) returns text[] language sql stable as $$
    select case when p_run_id is null then '{}' else array(
        select 'run:' || above.run_id
        from unnest(coalesce((select r.ancestors from runs r where r.tenant_id = app.tenant() and r.run_id = p_run_id),
                             '{}') || p_run_id) with ordinality above (run_id, depth)
        order by above.depth) end
$$;
revoke all on function app.run_accounts(text) from public;
grant execute on function app.run_accounts(text) to bailiwick_control;

-- Open a run's account, if it is not: its limit is the run's budget, p_limit when there is no such run.
create function app.open_account(p_account text, p_limit bigint) returns void language sql as $$
    insert into budget_accounts (tenant_id, account, limit_microusd)
    select app.tenant(), p_account,
           coalesce((select r.budget_microusd from runs r
                     where r.tenant_id = app.tenant() and r.run_id = substr(p_account, 5)), p_limit)
    on conflict (tenant_id, account) do nothing
$$;
revoke all on function app.open_account(text, bigint) from public;
grant execute on function app.open_account(text, bigint) to bailiwick_control;

-- Reserve money under a key. Returns 'ok', or whose account does not cover it: 'month', 'parent' (a run above it), 'run'.
-- A run's limit is fixed at its first reservation: its own budget, p_run_limit when there is no such run. p_beyond: the
-- accounts need not cover it, and the answer is 'ok'.
create function app.ledger_reserve(p_key text, p_run_id text, p_month text, p_amount bigint,
                                   p_run_limit bigint, p_month_limit bigint, p_beyond boolean, p_now timestamptz)
returns text language plpgsql as $$
declare
    accounts text[] := app.run_accounts(p_run_id);
    promised text[] := array['month:' || p_month];
    next     text;
begin
    insert into budget_accounts (tenant_id, account, limit_microusd)
    values (app.tenant(), 'month:' || p_month, p_month_limit)
    on conflict (tenant_id, account) do update set limit_microusd = excluded.limit_microusd;
    -- Only now: the account is locked, so nobody reserves the same key while we look.
    if exists (select 1 from ledger where tenant_id = app.tenant() and key = p_key) then return 'ok'; end if;
    update budget_accounts set reserved_microusd = reserved_microusd + p_amount
    where tenant_id = app.tenant() and account = 'month:' || p_month
      and (p_beyond or reserved_microusd + spent_microusd + p_amount <= limit_microusd);
    if not found then return 'month'; end if;
    foreach next in array accounts loop
        perform app.open_account(next, p_run_limit);
        update budget_accounts set reserved_microusd = reserved_microusd + p_amount
        where tenant_id = app.tenant() and account = next
          and (p_beyond or reserved_microusd + spent_microusd + p_amount <= limit_microusd);
        if not found then
            update budget_accounts set reserved_microusd = reserved_microusd - p_amount
            where tenant_id = app.tenant() and account = any(promised);
            return case when next = 'run:' || p_run_id then 'run' else 'parent' end;
        end if;
        promised := promised || next;
    end loop;
    insert into ledger (tenant_id, key, kind, run_id, month, amount_microusd, at)
    values (app.tenant(), p_key, 'reserve', p_run_id, p_month, p_amount, p_now);
    insert into reservations (tenant_id, key, run_id, at) values (app.tenant(), p_key, p_run_id, p_now);
    return 'ok';
end $$;
select app.control('app.ledger_reserve(text, text, text, bigint, bigint, bigint, boolean, timestamptz)');

-- Settle a reservation with what was really spent. False when it was settled before, or never reserved.
create function app.ledger_settle(p_key text, p_amount bigint, p_model text, p_now timestamptz)
returns boolean language plpgsql as $$
declare
    reserve  ledger%rowtype;
    accounts text[];
begin
    select * into reserve from ledger where tenant_id = app.tenant() and key = p_key and kind = 'reserve';
    if not found then return false; end if;
    perform 1 from budget_accounts
    where tenant_id = reserve.tenant_id and account = 'month:' || reserve.month for update;
    delete from reservations where tenant_id = reserve.tenant_id and key = p_key;
    if not found then return false; end if;
    insert into ledger (tenant_id, key, kind, run_id, month, amount_microusd, model, at)
    values (reserve.tenant_id, p_key, 'settle', reserve.run_id, reserve.month, p_amount, p_model, p_now);
    accounts := app.run_accounts(reserve.run_id);
    if cardinality(accounts) > 1 then
        perform 1 from budget_accounts where tenant_id = reserve.tenant_id and account = any(accounts)
        order by array_position(accounts, account) for update;
    end if;
    update budget_accounts
    set reserved_microusd = reserved_microusd - reserve.amount_microusd, spent_microusd = spent_microusd + p_amount
    where tenant_id = reserve.tenant_id and account = any(array['month:' || reserve.month] || accounts);
    return true;
end $$;
select app.control('app.ledger_settle(text, bigint, text, timestamptz)');

-- Give back what earlier attempts reserved and never settled (keys beginning with p_prefix). Returns how many.
create function app.ledger_abandon(p_prefix text, p_now timestamptz) returns integer
language plpgsql as $$
declare
    open_key text;
    count    integer := 0;
begin
    for open_key in
        select r.key from reservations r where r.tenant_id = app.tenant()
          and r.key >= p_prefix and r.key < p_prefix || chr(1114111)
    loop
        if app.ledger_settle(open_key, 0, null, p_now) then count := count + 1; end if;
    end loop;
    return count;
end $$;
select app.control('app.ledger_abandon(text, timestamptz)');

-- Give back what was reserved before a moment by somebody who will not settle it: outside of any run, or in a run
-- that has ended or never was. Of all tenants; returns how many.
create function app.ledger_forsaken(p_before timestamptz, p_limit integer, p_now timestamptz) returns integer
language plpgsql as $$
declare
    lost  record;
    count integer := 0;
begin
    perform app.outside();
    for lost in
        select r.tenant_id, r.key from reservations r
        where r.at < p_before and not exists (
            select 1 from runs u where u.tenant_id = r.tenant_id and u.run_id = r.run_id
              and u.state in ('queued', 'running', 'waiting'))
        order by r.tenant_id, r.at limit p_limit
    loop
        perform set_config('app.tenant', lost.tenant_id, true);
        if app.ledger_settle(lost.key, 0, null, p_now) then count := count + 1; end if;
    end loop;
    perform set_config('app.tenant', '', true);
    return count;
end $$;
select app.control('app.ledger_forsaken(timestamptz, integer, timestamptz)');

-- Somebody agreed to pay for more: make the limit of the run, and of every run above it, cover an amount on top of
-- what is used. Again: nothing.
create function app.budget_cover(p_run_id text, p_limit bigint, p_amount bigint) returns void language plpgsql as $$
declare next text;
begin
    foreach next in array app.run_accounts(p_run_id) loop
        perform app.open_account(next, p_limit);
        update budget_accounts
        set limit_microusd = greatest(limit_microusd, reserved_microusd + spent_microusd + p_amount)
        where tenant_id = app.tenant() and account = next;
    end loop;
end $$;
select app.control('app.budget_cover(text, bigint, bigint)');

-- Somebody says what a run may spend in all: that is its limit, and the runs above it cover what it may spend more. Of
-- each, from the root of the family down: its limit before, what is spent or promised, its limit now. The caller rolls
-- back what may not be. Nothing when there is no such run.
create function app.budget_set(p_run_id text, p_limit bigint)
returns table (run_id text, before_microusd bigint, used_microusd bigint, after_microusd bigint) language plpgsql as $$
#variable_conflict use_column
declare
    accounts text[] := app.run_accounts(p_run_id);
    next     text;
    more     bigint;  -- that those above it must cover; null: its limit does not grow
begin
    -- Runs before accounts, and children before their parents: the order of whoever works on a step.
    perform from runs r where r.tenant_id = app.tenant() and 'run:' || r.run_id = any(accounts)
    order by cardinality(r.ancestors) desc for no key update;
    if not exists (select from runs r where r.tenant_id = app.tenant() and r.run_id = p_run_id) then return; end if;
    foreach next in array accounts loop
        perform app.open_account(next, 0);
        perform from budget_accounts b where b.tenant_id = app.tenant() and b.account = next for update;
    end loop;
    select case when p_limit > b.limit_microusd then p_limit - b.reserved_microusd - b.spent_microusd end into strict more
    from budget_accounts b where b.tenant_id = app.tenant() and b.account = 'run:' || p_run_id;
    return query
        with changed as (
            select b.account, b.limit_microusd as before, b.reserved_microusd + b.spent_microusd as used,
                   case when b.account = 'run:' || p_run_id then p_limit
                        else greatest(b.limit_microusd, b.reserved_microusd + b.spent_microusd + more) end as after
            from budget_accounts b where b.tenant_id = app.tenant() and b.account = any(accounts)
        ), written as (
            update budget_accounts b set limit_microusd = c.after from changed c
            where b.tenant_id = app.tenant() and b.account = c.account
        ), shown as (
            update runs r set budget_microusd = c.after from changed c
            where r.tenant_id = app.tenant() and 'run:' || r.run_id = c.account and c.after <> c.before
        )
        select substr(c.account, 5), c.before, c.used, c.after from changed c order by array_position(accounts, c.account);
end $$;
select app.control('app.budget_set(text, bigint)');

create table audit (
    entry_id       bigint generated always as identity primary key,
    tenant_id      text not null references tenants,
    at             timestamptz not null,
    actor          text not null,
    act            text not null,                    -- e.g. review.decide, policy.change, model.call, refusal
    subject        text not null,
    before         jsonb,
    after          jsonb,
    policy_version integer not null,
    seq            bigint,
    prev_hash      bytea,
    hash           bytea
);
create unique index audit_chain on audit (tenant_id, seq) where seq is not null;
create index audit_unsealed on audit (tenant_id, entry_id) where seq is null;
create index audit_recent on audit (tenant_id, at desc);
select app.fence('audit', 'select');
-- Number and hash are given by the seal alone: nobody writes an entry that looks sealed.
grant insert (tenant_id, at, actor, act, subject, before, after, policy_version) on audit to bailiwick_app;
revoke update on audit from bailiwick_control;
grant update (seq, prev_hash, hash) on audit to bailiwick_control;

create table audit_heads (
    tenant_id    text primary key references tenants,
    seq          bigint not null,                 -- of the last entry sealed
    hash         bytea not null,
    removed_seq  bigint not null default 0,       -- of the last entry that retention removed: the anchor
    removed_hash bytea not null default '\x'
);
select app.fence('audit_heads', 'select');

-- Nothing is deleted but what lies before the anchor.
create function app.refuse_audit_delete() returns trigger language plpgsql as $$
begin
    if old.seq <= (select h.removed_seq from audit_heads h where h.tenant_id = old.tenant_id) then return old; end if;
    raise insufficient_privilege using message = 'An entry of the audit is removed by retention only.';
end $$;
create trigger audit_is_kept before delete on audit for each row execute function app.refuse_audit_delete();

-- The canonical bytes of an entry: what its hash covers.
create function app.audit_hash(p_entry audit, p_seq bigint, p_prev bytea) returns bytea language sql stable as $$
    select sha256(p_prev || convert_to(jsonb_build_array(
        p_entry.tenant_id, p_seq, extract(epoch from p_entry.at), p_entry.actor, p_entry.act, p_entry.subject,
        p_entry.before, p_entry.after, p_entry.policy_version)::text, 'UTF8'))
$$;

-- Seal up to p_limit unsealed entries of one tenant, oldest first. Returns how many.
create function app.audit_seal(p_tenant text, p_limit integer) returns integer
language plpgsql as $$
declare
    head  audit_heads%rowtype;
    entry audit%rowtype;
    count integer := 0;
begin
    perform app.outside();
    insert into audit_heads values (p_tenant, 0, '\x') on conflict do nothing;
    select * into head from audit_heads where tenant_id = p_tenant for update;
    for entry in select * from audit where tenant_id = p_tenant and seq is null order by entry_id limit p_limit
    loop
        head.seq := head.seq + 1;
        update audit set seq = head.seq, prev_hash = head.hash, hash = app.audit_hash(entry, head.seq, head.hash)
        where entry_id = entry.entry_id returning hash into head.hash;
        count := count + 1;
    end loop;
    update audit_heads set seq = head.seq, hash = head.hash where tenant_id = p_tenant;
    return count;
end $$;
select app.control('app.audit_seal(text, integer)');

-- Tenants with something to seal.
create function app.audit_pending() returns table (tenant_id text) language sql stable as $$
    select distinct a.tenant_id from audit a where a.seq is null and app.outside()
$$;
select app.control('app.audit_pending()');

-- How the audit of the transaction's tenant stands, at one moment. stray: the first entry that has a number outside of
-- the chain. explained: an entry tells of the removal that the chain begins with; one that none tells of is no retention.
create function app.audit_state()
returns table (removed_seq bigint, removed_hash bytea, head_seq bigint, head_hash bytea, unsealed bigint, stray bigint,
               explained boolean)
language sql stable as $$
    select h.removed_seq, h.removed_hash, h.seq, h.hash,
           (select count(*) from audit a where a.tenant_id = app.tenant() and a.seq is null),
           (select min(a.seq) from audit a
            where a.tenant_id = app.tenant() and (a.seq <= h.removed_seq or a.seq > h.seq)),
           h.removed_seq = 0 or exists (
               select from audit a where a.tenant_id = app.tenant() and a.act = 'audit.expire'
                 and a.after @> jsonb_build_object('removed_seq', h.removed_seq, 'hash', encode(h.removed_hash, 'hex')))
    from (select coalesce(o.seq, 0) as seq, coalesce(o.hash, '\x') as hash, coalesce(o.removed_seq, 0) as removed_seq,
                 coalesce(o.removed_hash, '\x') as removed_hash
          from (select app.tenant() as tenant_id) t left join audit_heads o on o.tenant_id = t.tenant_id) h
$$;

-- A stretch of the chain of the transaction's tenant, from the entry after p_after, whose hash is p_hash, until p_until:
-- how many fit, where that ends, and the first that does not: 'removed' (a number is missing) or 'changed' (its content,
-- or its place, is not what was sealed).
create function app.audit_stretch(p_after bigint, p_hash bytea, p_until bigint, p_limit integer)
returns table (fitting bigint, last_seq bigint, last_hash bytea, broken_seq bigint, fault text)
language sql stable as $$
    with chain as materialized (
        select a.entry, (a.entry).seq, (a.entry).prev_hash, (a.entry).hash,
               lag((a.entry).hash, 1, p_hash) over (order by (a.entry).seq) as before,
               p_after + row_number() over (order by (a.entry).seq) as place
        from (select k as entry from audit k where k.tenant_id = app.tenant() and k.seq > p_after and k.seq <= p_until
              order by k.seq limit p_limit) a
    ), first as (
        select least(c.seq, c.place) as seq, case when c.seq <> c.place then 'removed' else 'changed' end as fault
        from chain c
        where c.seq <> c.place or c.prev_hash is distinct from c.before
           or c.hash is distinct from app.audit_hash(c.entry, c.seq, c.before)
        order by c.seq limit 1
    )
    select count(*), max(c.seq), (array_agg(c.hash order by c.seq desc))[1],
           (select f.seq from first f), (select f.fault from first f)
    from chain c where c.seq < coalesce((select f.seq from first f), 9223372036854775807)
$$;

-- Who has entries older than their policy keeps them, other than those that told of a removal: these go with the next.
create function app.audit_expired(p_now timestamptz) returns table (tenant_id text) language sql stable as $$
    select t.tenant_id
    from tenants t join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    where app.outside() and exists (
        select from audit a
        where a.tenant_id = t.tenant_id and a.seq is not null and a.act <> 'audit.expire'
          and a.at < p_now - make_interval(days => (p.document ->> 'audit_retention_days')::integer))
$$;
select app.control('app.audit_expired(timestamptz)');

-- Remove from the front of the chain of the transaction's tenant up to p_limit entries, all older than its policy keeps
-- them; how many, and the anchor then. The last entry sealed stays: a chain never ends in nothing.
create function app.audit_expire(p_now timestamptz, p_limit integer)
returns table (removed bigint, removed_seq bigint, removed_hash text) language plpgsql as $$
declare
    head    audit_heads%rowtype;
    cutoff  timestamptz;
    count   bigint;
begin
    select * into head from audit_heads h where h.tenant_id = app.tenant() for update;
    select p_now - make_interval(days => (p.document ->> 'audit_retention_days')::integer) into cutoff
    from tenants t join policies p on p.tenant_id = t.tenant_id and p.version = t.policy_version
    where t.tenant_id = app.tenant();
    select e.seq, e.hash into head.removed_seq, head.removed_hash from (
        select a.seq, a.hash, bool_and(a.at < cutoff) over (order by a.seq) as old from (
            select * from audit k
            where k.tenant_id = app.tenant() and k.seq > head.removed_seq and k.seq < head.seq
            order by k.seq limit p_limit) a
    ) e where e.old order by e.seq desc limit 1;
    if not found then return; end if;
    update audit_heads h set removed_seq = head.removed_seq, removed_hash = head.removed_hash
    where h.tenant_id = app.tenant();
    delete from audit a where a.tenant_id = app.tenant() and a.seq <= head.removed_seq;
    get diagnostics count = row_count;
    return query select count, head.removed_seq, encode(head.removed_hash, 'hex');
end $$;
select app.control('app.audit_expire(timestamptz, integer)');
grant execute on function app.audit_hash(audit, bigint, bytea) to bailiwick_control;
