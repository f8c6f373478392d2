"""Use-cases of memory: learn, remember, recall, forget.

A statement goes: said → extracted by a model → admitted (``memory.admission``) → stored, with its embedding
→ followed by the graph. Storing, closing what it contradicts, the audit entry and the note for the graph are
one transaction; writers of one tenant take turns, so two of them cannot store the same or miss a
contradiction.

What is missing costs quality, not function, and is made up for later by ``drain``:

- no model for the extraction: ``remember`` keeps the statement as it was said; ``learn`` raises, to be retried;
- no embedding: the memory is found by its words;
- no graph: recall goes without neighbours, and changes wait in the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, Forbidden, InvalidInput, NotFound
from core.ids import MemoryId, RunId, TenantId, ThreadId, UserId
from core.models.gateway import ModelGateway, TenantModels
from core.ports import Recalled, Utterance
from core.tenancy import ActorKind, Scope, TenantContext
from memory import store
from memory.admission import admit, as_said, is_secret
from memory.extraction import extract
from memory.graph import MemoryGraph
from memory.keeping import erase, keep
from memory.model import Draft, Memory, Provenance, Vector, clean, names_in, printable, without_names
from memory.projection import GraphProjection
from memory.ranking import rank

MAX_STATEMENT = 2_000
MAX_QUERY = 1_000
MAX_RECALLED = 50
MAX_LISTED = 200
MAX_MESSAGES = 20
"""Messages of a turn that are looked at, the newest ones."""

_PER_SIGNAL = 200  # candidates by words and by meaning; the ranking sees both scores of every one
_KNOWN = 10
_EMBEDDED_AT_ONCE = 100
_PURPOSE = "memory"

# A method of the port is called ``list``, which hides the type from the annotations below it.
Answer = list[Recalled]
Drafts = list[Draft]
MemoryIds = list[MemoryId]
Tenants = list[TenantId]
Vectors = list[Vector | None]

_log = structlog.get_logger(__name__)


class MemoryService:
    """The memory of all tenants of a region; implements ``core.ports.MemoryPort``.

    ``space`` names what makes embeddings comparable (the embedding model): those of another space are made anew.
    """

    def __init__(
        self, db: Database, models: ModelGateway, graph: MemoryGraph, audit: AuditService, clock: Clock, *, space: str
    ) -> None:
        self._db = db
        self._models = models
        self._graph = graph
        self._audit = audit
        self._clock = clock
        self._space = space
        self._projection = GraphProjection(db, graph)

    # Reading --------------------------------------------------------------------------------------------

    async def recall(self, ctx: TenantContext, query: str, limit: int = 8, *, at: datetime | None = None) -> Answer:
        """What is known about ``query``, best first, at most 50. Needs ``memory:read``.

        ``at``: what was so at that time, as far as it is known today. The query is cut at 1,000 characters.
        Without the model or the graph it answers from the words alone.
        """
        ctx.require(Scope.MEMORY_READ)
        query = clean(query, MAX_QUERY)
        limit = max(0, min(limit, MAX_RECALLED))
        if not query or not limit:
            return []
        return await self._search(ctx, query, limit, at or self._clock.now())

    async def list(self, ctx: TenantContext, limit: int = 50) -> Answer:
        """What is known now, newest first, at most 200. Needs ``memory:read``."""
        ctx.require(Scope.MEMORY_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            newest = await store.newest(tx, ctx.user_id, self._clock.now(), max(0, min(limit, MAX_LISTED)))
        return [_recalled(memory) for memory in newest]

    async def get(self, ctx: TenantContext, memory_id: MemoryId) -> Memory:
        """One memory with its origin and validity, closed ones included. Raises ``NotFound``. Needs ``memory:read``."""
        ctx.require(Scope.MEMORY_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.by_id(tx, ctx.user_id, [memory_id])
        if not found:
            raise NotFound("There is no such memory.")
        return found[0]

    # Learning -------------------------------------------------------------------------------------------

    async def remember(self, ctx: TenantContext, statement: str, *, thread_id: ThreadId | None) -> Answer:
        """Store what a user asked to remember; what is known of it now. Needs ``memory:write``.

        Raises ``InvalidInput`` for an empty or too long statement, or one that holds a password or a key.
        """
        ctx.require(Scope.MEMORY_WRITE)
        said = clean(statement, MAX_STATEMENT + 1)
        if not said or len(said) > MAX_STATEMENT:
            raise InvalidInput(f"A statement to remember has 1 to {MAX_STATEMENT} characters.")
        if is_secret(said):
            raise InvalidInput("Passwords and keys are not kept in memory.")
        messages = [Utterance("user", f"Remember that: {said}")]
        now = self._clock.now()
        try:
            drafts, model = await self._extracted(ctx, messages, now)
        except BailiwickError as error:
            _log.warning("memory.kept_as_said", tenant=ctx.tenant_id, code=error.code)
            drafts, model = [], None
        if not drafts:
            plain = as_said(said, personal=ctx.user_id is not None)
            drafts, model = [plain] if plain else [], None
        stored = await self._keep(ctx, drafts, Provenance(ctx.actor, ctx.user_id, thread_id, model, now))
        async with self._db.tenant_transaction(ctx) as tx:
            return [_recalled(memory) for memory in await store.by_id(tx, ctx.user_id, stored)]

    async def learn(
        self,
        ctx: TenantContext,
        messages: Sequence[Utterance],
        *,
        thread_id: ThreadId | None,
        said_at: datetime | None = None,
        source_key: str | None = None,
    ) -> int:
        """Learn what the user stated in a turn; the number of memories stored or confirmed. Needs ``memory:write``.

        ``said_at``: when it was said, if not now. ``source_key``: a step that is repeated after it had stored
        something stores nothing again. Raises what the gateway raises when no model answers; nothing is stored then.
        """
        ctx.require(Scope.MEMORY_WRITE)
        turn = [Utterance(said.role, printable(said.text), said.entry_id) for said in messages[-MAX_MESSAGES:]]
        if not any(said.role == "user" and said.text.strip() for said in turn):
            return 0
        if source_key is not None:
            async with self._db.tenant_transaction(ctx) as tx:
                if before := await store.already_learned(tx, source_key):
                    return before
        moment = said_at or self._clock.now()
        drafts, model = await self._extracted(ctx, turn, moment)
        origin = Provenance(ctx.actor, ctx.user_id, thread_id, model, moment, source_key)
        return len(await self._keep(ctx, drafts, origin))

    # Forgetting -----------------------------------------------------------------------------------------

    async def forget(self, ctx: TenantContext, memory_id: MemoryId) -> bool:
        """Delete a memory everywhere; False when there is no such memory. Needs ``memory:write``.

        The audit keeps that it was forgotten and by whom, not what it said.
        """
        ctx.require(Scope.MEMORY_WRITE)
        return await self._erase(ctx, [memory_id], "memory.forget", memory_id) == 1

    async def erase_thread(self, ctx: TenantContext, thread_id: ThreadId) -> int:
        """Delete what was learned from a conversation and is the caller's own or the tenant's; how many memories.

        Needs ``memory:write``; that the conversation is the caller's is for the conversation's room to check.
        """
        ctx.require(Scope.MEMORY_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            learned = await store.of_thread(tx, ctx.user_id, thread_id)
        return await self._erase(ctx, learned, "memory.erase_thread", thread_id)

    async def erase_user(self, ctx: TenantContext, user_id: UserId) -> int:
        """Delete what belongs to a person, and their traces in what they taught everybody; how many were deleted.

        A person may erase themselves (``memory:write``), an admin (``tenant:write``) anybody of the tenant.
        """
        ctx.require(Scope.MEMORY_WRITE if user_id == ctx.user_id else Scope.TENANT_WRITE)
        if ctx.actor_kind is ActorKind.RUN:
            raise Forbidden("A run erases nobody.")
        async with self._db.tenant_transaction(ctx) as tx:
            await store.line_up(tx)
            own = await store.of_user(tx, user_id)
            await store.enqueue(tx, await store.depersonalise(tx, user_id))
        return await self._erase(ctx, own, "memory.erase_user", user_id, owner=user_id)

    # Catching up ----------------------------------------------------------------------------------------

    async def drain(self, ctx: TenantContext) -> int:
        """Make up for what was postponed: missing embeddings, changes the graph has not followed; how many.

        Raises ``Unavailable``, or what the gateway raises, when the model or the graph is still away.
        """
        return await self._embed_missing(ctx) + await self._projection.drain(ctx)

    async def tenants_behind(self) -> Tenants:
        """Tenants for whom ``drain`` has something to do."""
        async with self._db.control_transaction() as tx:
            return await store.tenants_behind(tx)

    # Inside ---------------------------------------------------------------------------------------------

    async def _search(self, ctx: TenantContext, query: str, limit: int, at: datetime) -> Answer:
        vector, hops = await asyncio.gather(self._embedded_query(ctx, query), self._neighbours(ctx, query, at))
        asked = None if vector is None else (self._space, vector)
        async with self._db.tenant_transaction(ctx) as tx:
            found, corpus = await store.candidates(tx, ctx.user_id, at, query, asked, _PER_SIGNAL, hops)
        by_id = {one.candidate.memory_id: one for one in found}
        ranking = rank([one.candidate for one in found], corpus, at, limit)
        return [_answer(by_id[ranked.memory_id], ranked.score) for ranked in ranking]

    async def _extracted(
        self, ctx: TenantContext, messages: Sequence[Utterance], said_at: datetime
    ) -> tuple[Drafts, str]:
        """What the messages state, checked, and the model that read them."""
        said = clean(" ".join(one.text for one in messages if one.role == "user"), MAX_QUERY)
        near = await self._search(ctx, said, _KNOWN, self._clock.now())
        async with self._db.tenant_transaction(ctx) as tx:
            known = await store.by_id(tx, ctx.user_id, [one.memory_id for one in near])
        models = self._models_for(ctx)
        extracted = await extract(models, messages, known, said_at)
        ids = {memory.memory_id for memory in known}
        return admit(extracted, messages, ids, personal=ctx.user_id is not None), models.model_name()

    async def _keep(self, ctx: TenantContext, drafts: Sequence[Draft], origin: Provenance) -> MemoryIds:
        if not drafts:
            return []
        vectors = await self._embedded(ctx, [draft.text for draft in drafts])
        embeddings = [None if vector is None else (self._space, vector) for vector in vectors]
        async with self._db.tenant_transaction(ctx) as tx:
            kept = await keep(tx, drafts, embeddings, origin, self._clock.now())
            facts = {"stored": kept.stored, "confirmed": kept.confirmed, "closed": kept.closed, "model": origin.model}
            await self._audit.record(tx, ctx, "memory.learn", origin.thread_id or "memory", after=facts)
        await self._follow(ctx)
        return kept.known

    async def _erase(
        self, ctx: TenantContext, memory_ids: Sequence[MemoryId], act: str, subject: str, owner: UserId | None = None
    ) -> int:
        async with self._db.tenant_transaction(ctx) as tx:
            gone = await erase(tx, owner or ctx.user_id, memory_ids)
            if not gone and act == "memory.forget":
                return 0
            facts = {"memories": [{"memory_id": one.memory_id, "kind": one.kind.value} for one in gone]}
            await self._audit.record(tx, ctx, act, subject, before=facts)
        await self._follow(ctx)
        return len(gone)

    async def _follow(self, ctx: TenantContext) -> None:
        """Let the graph follow now if it answers; what it does not take waits in the outbox."""
        try:
            await self._projection.drain(ctx)
        except BailiwickError as error:
            _log.warning("memory.graph_waits", tenant=ctx.tenant_id, code=error.code)

    async def _neighbours(self, ctx: TenantContext, query: str, at: datetime) -> dict[MemoryId, int]:
        try:
            return await self._graph.neighbours(ctx.tenant_id, ctx.user_id, names_in(query), at)
        except BailiwickError as error:
            _log.debug("memory.no_neighbours", tenant=ctx.tenant_id, code=error.code)
            return {}

    async def _embedded(self, ctx: TenantContext, texts: Sequence[str]) -> Vectors:
        """An embedding for each text; Nones when no model answers or the budget is used up."""
        try:
            return [*await self._models_for(ctx).embed(texts)]
        except BailiwickError as error:
            _log.warning("memory.not_embedded", tenant=ctx.tenant_id, code=error.code)
            return [None] * len(texts)

    async def _embedded_query(self, ctx: TenantContext, query: str) -> Vector | None:
        """The query's embedding: half as it was asked, half without the names in it."""
        bare = without_names(query)
        if bare is None:
            return (await self._embedded(ctx, [query]))[0]
        asked, without = await self._embedded(ctx, [query, bare])
        if asked is None or without is None:
            return None
        return [(one + other) / 2 for one, other in zip(asked, without, strict=True)]

    async def _embed_missing(self, ctx: TenantContext) -> int:
        total = 0
        while True:
            async with self._db.tenant_transaction(ctx) as tx:
                missing = await store.unembedded(tx, self._space, _EMBEDDED_AT_ONCE)
            if not missing:
                return total
            vectors = await self._models_for(ctx).embed([text for _, text in missing])
            async with self._db.tenant_transaction(ctx) as tx:
                pairs = [(memory_id, vector) for (memory_id, _), vector in zip(missing, vectors, strict=True)]
                await store.embed(tx, self._space, pairs)
            total += len(missing)

    def _models_for(self, ctx: TenantContext) -> TenantModels:
        run_id = RunId(ctx.actor_id) if ctx.actor_kind is ActorKind.RUN else None
        return self._models.for_tenant(ctx, _PURPOSE, run_id=run_id)


def _answer(found: store.Found, score: float) -> Recalled:
    one = found.candidate
    return Recalled(one.memory_id, one.text, found.kind.value, score, found.thread_id, found.learned_at)


def _recalled(memory: Memory) -> Recalled:
    """A memory that was asked for itself, not found by a query."""
    return Recalled(memory.memory_id, memory.text, memory.kind.value, 1.0, memory.thread_id, memory.learned_at)
