-- Money and the record of acts.
--
-- Ledger: append-only entries in micro-USD. A step reserves its estimate under a key, then settles the same
-- key once with what it really cost (0 releases it). Accounts hold the running sums, one for the month and
-- one for each run; reserved + spent <= limit is checked when money is reserved, never later, so work that
-- was begun can always be paid. Same key again: nothing happens. A crash between the two leaves a
-- reservation, which the next attempt of the step settles at 0, or housekeeping when nobody will try again.
-- Lock order: the month's account, then the run's; so a tenant's entries are written one after the other.
--
-- Audit: entries are appended unsealed (no lock, no contention); sealing gives them, in order, a number and
-- the hash of their content and of the entry before. Changing or removing a sealed entry breaks the chain.

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

-- Reserve money under a key. Returns 'ok', or the name of the account that does not cover it: 'run', 'month'.
-- A run's limit is fixed at its first reservation: its own budget, p_run_limit when there is no such run.
create function app.ledger_reserve(p_key text, p_run_id text, p_month text, p_amount bigint,
                                   p_run_limit bigint, p_month_limit bigint, p_now timestamptz)
returns text language plpgsql as $$
begin
    insert into budget_accounts (tenant_id, account, limit_microusd)
    values (app.tenant(), 'month:' || p_month, p_month_limit)
    on conflict (tenant_id, account) do update set limit_microusd = excluded.limit_microusd;
    -- Only now: the account is locked, so nobody reserves the same key while we look.
    if exists (select 1 from ledger where tenant_id = app.tenant() and key = p_key) then return 'ok'; end if;
    update budget_accounts set reserved_microusd = reserved_microusd + p_amount
    where tenant_id = app.tenant() and account = 'month:' || p_month
      and reserved_microusd + spent_microusd + p_amount <= limit_microusd;
    if not found then return 'month'; end if;
    if p_run_id is not null then
        insert into budget_accounts (tenant_id, account, limit_microusd)
        select app.tenant(), 'run:' || p_run_id,
               coalesce((select r.budget_microusd from runs r where r.tenant_id = app.tenant() and r.run_id = p_run_id),
                        p_run_limit)
        on conflict (tenant_id, account) do nothing;
        update budget_accounts set reserved_microusd = reserved_microusd + p_amount
        where tenant_id = app.tenant() and account = 'run:' || p_run_id
          and reserved_microusd + spent_microusd + p_amount <= limit_microusd;
        if not found then
            update budget_accounts set reserved_microusd = reserved_microusd - p_amount
            where tenant_id = app.tenant() and account = 'month:' || p_month;
            return 'run';
        end if;
    end if;
    insert into ledger (tenant_id, key, kind, run_id, month, amount_microusd, at)
    values (app.tenant(), p_key, 'reserve', p_run_id, p_month, p_amount, p_now);
    insert into reservations (tenant_id, key, run_id, at) values (app.tenant(), p_key, p_run_id, p_now);
    return 'ok';
end $$;
select app.control('app.ledger_reserve(text, text, text, bigint, bigint, bigint, timestamptz)');

-- Settle a reservation with what was really spent. False when it was settled before, or never reserved.
create function app.ledger_settle(p_key text, p_amount bigint, p_model text, p_now timestamptz)
returns boolean language plpgsql as $$
declare reserve ledger%rowtype;
begin
    select * into reserve from ledger where tenant_id = app.tenant() and key = p_key and kind = 'reserve';
    if not found then return false; end if;
    perform 1 from budget_accounts
    where tenant_id = reserve.tenant_id and account = 'month:' || reserve.month for update;
    delete from reservations where tenant_id = reserve.tenant_id and key = p_key;
    if not found then return false; end if;
    insert into ledger (tenant_id, key, kind, run_id, month, amount_microusd, model, at)
    values (reserve.tenant_id, p_key, 'settle', reserve.run_id, reserve.month, p_amount, p_model, p_now);
    update budget_accounts
    set reserved_microusd = reserved_microusd - reserve.amount_microusd, spent_microusd = spent_microusd + p_amount
    where tenant_id = reserve.tenant_id
      and account in ('month:' || reserve.month, 'run:' || coalesce(reserve.run_id, ''));
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

-- Somebody agreed to pay for more: make the run's limit cover an amount on top of what is used. Again: nothing.
create function app.budget_cover(p_run_id text, p_limit bigint, p_amount bigint) returns void language sql as $$
    insert into budget_accounts as b (tenant_id, account, limit_microusd)
    values (app.tenant(), 'run:' || p_run_id, greatest(p_limit, p_amount))
    on conflict (tenant_id, account) do update
        set limit_microusd = greatest(b.limit_microusd, b.reserved_microusd + b.spent_microusd + p_amount)
$$;
select app.control('app.budget_cover(text, bigint, bigint)');

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
revoke delete on audit from bailiwick_control;
revoke update on audit from bailiwick_control;
grant update (seq, prev_hash, hash) on audit to bailiwick_control;

create table audit_heads (
    tenant_id text primary key references tenants,
    seq       bigint not null,
    hash      bytea not null
);
select app.fence('audit_heads', 'select');

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

-- The first entry of the chain of the transaction's tenant that does not fit, null when the chain is whole.
create function app.audit_broken(p_tenant text) returns bigint language sql stable as $$
    with chain as (
        select a, a.seq as seq, a.prev_hash as prev_hash, a.hash as hash,
               lag(a.hash, 1, '\x'::bytea) over (order by a.seq) as before,
               row_number() over (order by a.seq) as position
        from audit a where a.tenant_id = p_tenant and p_tenant = app.tenant() and a.seq is not null
    )
    select coalesce(
        (select min(seq) from chain
         where seq <> position or prev_hash <> before or hash <> app.audit_hash(a, seq, before)),
        (select h.seq from audit_heads h where h.tenant_id = p_tenant and p_tenant = app.tenant()
         and h.seq <> (select count(*) from chain)))
$$;
grant execute on function app.audit_hash(audit, bigint, bytea) to bailiwick_control;
select app.control('app.audit_broken(text)');
