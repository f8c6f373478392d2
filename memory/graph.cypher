-- name: unique_entity
// One node for each thing a tenant talks about.
CREATE CONSTRAINT entity_key IF NOT EXISTS FOR (e:Entity) REQUIRE (e.tenant_id, e.key) IS UNIQUE

-- name: unique_triple
// One node for each memory that relates two things. A node, because merging a relationship is not unique.
CREATE CONSTRAINT triple_memory IF NOT EXISTS FOR (t:Triple) REQUIRE (t.tenant_id, t.memory_id) IS UNIQUE

-- name: unique_position
// How far a tenant's graph has followed its memories.
CREATE CONSTRAINT position_tenant IF NOT EXISTS FOR (p:Position) REQUIRE p.tenant_id IS UNIQUE

-- name: position
// The last change that was applied; no row when the tenant has no graph.
MATCH (p:Position {tenant_id: $tenant}) RETURN p.position AS position

-- name: set_position
// Note the last change, in the transaction that applies it.
MERGE (p:Position {tenant_id: $tenant}) SET p.position = $position

-- name: remove
// Take triples out, and name the things they were about.
UNWIND $memory_ids AS memory_id
MATCH (t:Triple {tenant_id: $tenant, memory_id: memory_id})-[:SUBJECT|OBJECT]->(e:Entity)
WITH t, collect(DISTINCT e.key) AS keys
DETACH DELETE t
RETURN keys

-- name: remove_orphans
// Remove things that nothing is known about any more.
UNWIND $keys AS key
MATCH (e:Entity {tenant_id: $tenant, key: key})
WHERE NOT EXISTS { (e)<-[:SUBJECT|OBJECT]-(:Triple) }
DELETE e

-- name: put
// Bring triples to what their memories say; doing it again changes nothing.
UNWIND $triples AS row
MERGE (s:Entity {tenant_id: $tenant, key: row.subject_key}) ON CREATE SET s.name = row.subject
MERGE (o:Entity {tenant_id: $tenant, key: row.object_key}) ON CREATE SET o.name = row.object
MERGE (t:Triple {tenant_id: $tenant, memory_id: row.memory_id})
SET t.predicate = row.predicate, t.owner = row.owner, t.valid_from_ms = row.valid_from_ms,
    t.valid_to_ms = row.valid_to_ms, t.thread_id = row.thread_id, t.learned_at_ms = row.learned_at_ms
MERGE (t)-[:SUBJECT]->(s)
MERGE (t)-[:OBJECT]->(o)

-- name: clear_triples
// Remove a tenant's triples, some at a time; how many went.
MATCH (t:Triple {tenant_id: $tenant})
WITH t LIMIT 5000
DETACH DELETE t
RETURN count(*) AS removed

-- name: clear_entities
// Remove what a tenant talks about, some at a time; how many went.
MATCH (e:Entity {tenant_id: $tenant})
WITH e LIMIT 5000
DETACH DELETE e
RETURN count(*) AS removed

-- name: about
// Valid triples about the things named, newest first: of the tenant ('') and of the asker.
MATCH (e:Entity {tenant_id: $tenant})<-[:SUBJECT|OBJECT]-(t:Triple {tenant_id: $tenant})
WHERE e.key IN $keys AND t.owner IN $owners
  AND t.valid_from_ms <= $at_ms AND (t.valid_to_ms IS NULL OR t.valid_to_ms > $at_ms)
RETURN DISTINCT t.memory_id AS memory_id, t.learned_at_ms AS learned_at_ms
ORDER BY learned_at_ms DESC LIMIT $limit

-- name: one_step_further
// Valid triples about the things that those triples lead to. Pronouns lead everywhere, so they lead nowhere.
UNWIND $memory_ids AS memory_id
MATCH (:Triple {tenant_id: $tenant, memory_id: memory_id})-[:SUBJECT|OBJECT]->(e:Entity)
WHERE NOT e.key IN $passed
WITH DISTINCT e
MATCH (e)<-[:SUBJECT|OBJECT]-(t:Triple {tenant_id: $tenant})
WHERE t.owner IN $owners
  AND t.valid_from_ms <= $at_ms AND (t.valid_to_ms IS NULL OR t.valid_to_ms > $at_ms)
RETURN DISTINCT t.memory_id AS memory_id, t.learned_at_ms AS learned_at_ms
ORDER BY learned_at_ms DESC LIMIT $limit
