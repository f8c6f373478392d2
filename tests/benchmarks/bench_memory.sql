-- name: fill
-- A tenant ($1) of $4 memories by actor $2 at $3, with words in common and vectors that differ.
insert into memories (tenant_id, memory_id, kind, text, content_hash, embedding, embedding_model, learned_by,
                      learned_at, confirmed_at, valid_from)
select $1, 'mem_' || n, 'fact',
       'Rule ' || n || ' of branch ' || n % 97 || ': ' ||
       (array['applications', 'limits', 'documents', 'payslips', 'scores', 'addresses', 'incomes', 'debts'])[1 + n % 8] ||
       ' are ' || (array['declined', 'checked', 'approved', 'reviewed', 'counted'])[1 + n % 5] || ' by desk ' || n % 31,
       sha256(n::text::bytea),
       (select array_agg(sin(n * 0.37 + place * (1 + n % 13)))::vector from generate_series(1, 384) place),
       'text-embedding-3-small', $2, $3, $3, $3
from generate_series(1, $4::integer) n
on conflict do nothing;
