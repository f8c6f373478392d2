"""Triggers as people edit them, and the two ways in which they start runs.

A webhook: ``identify`` finds out whose it is and whether it is signed, ``deliver`` submits its run under a key
made of the trigger and the webhook's id. Whoever sent it is told what became of it, and sends again what was
refused or got no answer.

An event: Postgres keeps, with the event itself, that runs are to be started (``0012_triggers.sql``). The leading
scheduler reads what is ``due`` and has it started by ``start``; a refusal that passes by itself (quota, load)
postpones it, another is recorded and the trigger goes on with the next event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, InvalidInput, SetupError
from core.ids import RunId, TenantId, TriggerId, new_id
from core.queue.model import Topic
from core.redis.bus import Bus
from core.runs.model import RunRequest
from core.runs.service import RunService
from core.runs.submission import Catalog
from core.schedules.editing import Editor, Rows
from core.schedules.model import check_name, describe, passes_by_itself, retry_delay
from core.schedules.service import start_once
from core.tenancy import Scope, TenantContext
from core.triggers import store
from core.triggers.model import (
    EVENT_FIELD,
    MAX_TRIGGERS,
    SAMPLE_EVENT,
    Delivery,
    ToStart,
    TriggerEvent,
    TriggerKind,
    TriggerView,
    check_event,
    check_headers,
    faults_beside_payload,
    input_with,
    is_signed,
    occurrence,
    refused,
    secret_of,
)

STARTING = frozenset({Scope.RUNS_WRITE})
"""Rights of the context in which a trigger starts its runs."""

_ROWS: Rows[TriggerView] = Rows(
    "trigger",
    MAX_TRIGGERS,
    key=lambda view: view.trigger_id,
    all=store.triggers,
    one=store.trigger,
    insert=store.insert_trigger,
    update=lambda tx, _, after, now: store.update_trigger(tx, after, now),
    delete=store.delete_trigger,
)


@dataclass(frozen=True, slots=True)
class Made:
    """A trigger and, for a webhook, its signing secret: it is shown this once."""

    trigger: TriggerView
    secret: str | None


class TriggerService:
    """The triggers of one region."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        runs: RunService,
        audit: AuditService,
        catalog: Catalog,
        clock: Clock,
        *,
        secret_key: SecretStr | None,
    ) -> None:
        self._db = db
        self._bus = bus
        self._runs = runs
        self._audit = audit
        self._catalog = catalog
        self._clock = clock
        self._secret_key = secret_key
        self._editor = Editor(db, audit, clock, _ROWS, self._tell)

    # Look -----------------------------------------------------------------------------------------------

    async def list(self, ctx: TenantContext) -> Sequence[TriggerView]:
        """All of the tenant's triggers, oldest first."""
        return await self._editor.list(ctx)

    async def get(self, ctx: TenantContext, trigger_id: str) -> TriggerView:
        """One trigger. Raises ``NotFound`` for foreign and missing alike."""
        return await self._editor.get(ctx, trigger_id)

    # Edit -----------------------------------------------------------------------------------------------

    async def create(
        self,
        ctx: TenantContext,
        *,
        kind: TriggerKind,
        name: str,
        workflow: str,
        event: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
    ) -> Made:
        """Start a workflow at every webhook, or at every event of a name.

        The run's input is ``input`` with what came in field ``event`` (``TriggerEvent``). Raises ``Forbidden``,
        ``InvalidInput`` (name, event, input), ``WorkflowUnknown``, ``QuotaExceeded`` at 200 triggers.
        """

        def make(now: datetime) -> TriggerView:
            return TriggerView(
                trigger_id=TriggerId(new_id("trg", now)),
                kind=kind,
                name=check_name(name),
                event=check_event(kind, event),
                workflow=workflow,
                input=self._checked_input(workflow, input or {}),
                paused=False,
                version=1,
                secret_version=1,
                last_fired_at=None,
                last_run_id=None,
                last_error=None,
                user_id=ctx.user_id,
                created_by=ctx.actor,
                created_at=now,
                updated_at=now,
            )

        return self._made(await self._editor.add(ctx, make))

    async def edit(
        self,
        ctx: TenantContext,
        trigger_id: str,
        *,
        name: str | None = None,
        event: str | None = None,
        workflow: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
        version: int | None = None,
    ) -> TriggerView:
        """Change what is given; a webhook stays one.

        Raises what ``create`` raises, ``NotFound``, and ``Conflict`` when ``version`` is not the current one.
        """

        def change(before: TriggerView) -> TriggerView:
            chosen = workflow or before.workflow
            return replace(
                before,
                name=before.name if name is None else check_name(name),
                event=before.event if event is None else check_event(before.kind, event),
                workflow=chosen,
                input=self._checked_input(chosen, before.input if input is None else input),
            )

        return await self._editor.edit(ctx, trigger_id, "edit", change, version)

    async def pause(self, ctx: TenantContext, trigger_id: str) -> TriggerView:
        """Start nothing until it is resumed: webhooks are refused, events pass by. Raises ``NotFound``."""
        change = lambda before: replace(before, paused=True)  # noqa: E731 - one field
        return await self._editor.edit(ctx, trigger_id, "pause", change)

    async def resume(self, ctx: TenantContext, trigger_id: str) -> TriggerView:
        """Start runs again; nothing is made up for. Raises ``NotFound``."""
        change = lambda before: replace(before, paused=False)  # noqa: E731 - one field
        return await self._editor.edit(ctx, trigger_id, "resume", change)

    async def rotate_secret(self, ctx: TenantContext, trigger_id: str) -> Made:
        """Another signing secret; the one before is useless at once.

        Raises ``NotFound``, and ``InvalidInput`` for a trigger that is no webhook.
        """

        def change(before: TriggerView) -> TriggerView:
            if before.kind is not TriggerKind.WEBHOOK:
                raise InvalidInput("Only a webhook has a secret.")
            return replace(before, secret_version=before.secret_version + 1)

        return self._made(await self._editor.edit(ctx, trigger_id, "rotate_secret", change))

    async def delete(self, ctx: TenantContext, trigger_id: str) -> None:
        """Remove a trigger; its runs stay. Raises ``NotFound``."""
        await self._editor.delete(ctx, trigger_id)

    def _checked_input(self, workflow: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the input that people write, checked together with an event such as might come.

        Nobody knows yet what the payload will be: what is wrong with the sample's is not held against it.
        """
        info = self._catalog.resolve(workflow, None)
        try:
            checked = self._catalog.validate(info, input_with(document, SAMPLE_EVENT))
        except InvalidInput as error:
            if faults := faults_beside_payload(error):
                raise InvalidInput(error.message, errors=faults) from None
            checked = dict(document) | {EVENT_FIELD: None}
        if EVENT_FIELD not in checked:
            raise InvalidInput(
                f"A trigger cannot start workflow {workflow}: its input has no field {EVENT_FIELD!r} (a TriggerEvent).",
                field="workflow",
            )
        return {key: value for key, value in checked.items() if key != EVENT_FIELD}

    def _made(self, view: TriggerView) -> Made:
        if view.kind is not TriggerKind.WEBHOOK:
            return Made(view, None)
        return Made(view, secret_of(self._key(), view.trigger_id, view.secret_version))

    def _key(self) -> str:
        if self._secret_key is None:
            raise SetupError("BAILIWICK_SECRET_KEY is not set: without it webhooks have no secrets.")
        return self._secret_key.get_secret_value()

    async def _tell(self, ctx: TenantContext, trigger_id: str) -> None:
        await self._bus.publish(ctx.tenant_id, "schedule", {"trigger_id": trigger_id})

    # Webhooks -------------------------------------------------------------------------------------------

    async def identify(self, trigger_id: str, delivery: Delivery) -> TenantId:
        """Whose webhook this is.

        Raises ``Unauthenticated``, always in the same words and after the same work, for one that is not
        signed with the trigger's secret, that is older than 5 minutes, or that names no webhook in force.
        """
        sent_at = check_headers(delivery, self._clock.now())
        async with self._db.control_transaction() as tx:
            known = await store.webhook(tx, trigger_id)
        tenant_id, secret_version = known or (None, 0)  # nothing is ever signed with the secret of version 0
        signed = is_signed(delivery, sent_at, secret_of(self._key(), trigger_id, secret_version))
        if tenant_id is None or not signed:
            raise refused()
        return tenant_id

    async def deliver(self, ctx: TenantContext, trigger_id: str, delivery_id: str, payload: Any) -> tuple[RunId, bool]:
        """Start the run of a webhook; the run, and whether it is new (False: the webhook came before).

        ``ctx`` is the trigger's own, with ``STARTING``. Raises what a submission raises, and ``Unauthenticated``
        when the trigger was paused or removed a moment ago.
        """
        ctx.require(Scope.RUNS_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            view = await store.trigger(tx, trigger_id)
        if view is None or view.paused:
            raise refused()
        event = TriggerEvent(event=view.name, key=delivery_id, payload=payload)
        request = self._request(view, event, occurrence(view.trigger_id, delivery_id))
        try:
            run, created = await self._runs.submit(replace(ctx, user_id=view.user_id), request)
        except BailiwickError as error:
            await self._record(ctx, view, None, error)
            raise
        if created:
            await self._record(ctx, view, run.run_id)
        return run.run_id, created

    # Events ---------------------------------------------------------------------------------------------

    async def sent(self, ctx: TenantContext, name: str, key: str) -> None:
        """Wake the leading scheduler when an event that was sent has runs to start.

        Without it they start at the scheduler's next idle look.
        """
        async with self._db.tenant_transaction(ctx) as tx:
            waiting = await store.any_to_start(tx, name, key)
        if waiting:
            await self._bus.signal(Topic.SCHEDULER)

    async def next_due(self) -> datetime | None:
        """When the next run of an event is to be started, in whichever tenant; None: there is none."""
        async with self._db.control_transaction() as tx:
            return await store.next_due(tx)

    async def due(self, limit: int) -> Sequence[ToStart]:
        """Runs of events to be started now: one of every tenant, then another of every tenant, and so on."""
        async with self._db.control_transaction() as tx:
            return await store.due(tx, self._clock.now(), limit)

    async def start(self, ctx: TenantContext, one: ToStart) -> None:
        """Start the run of an event, once, whoever else tries at the same time.

        ``ctx`` is the trigger's own, with ``STARTING``. Raises ``Unavailable`` when Postgres is gone.
        """
        async with self._db.tenant_transaction(ctx) as tx:
            view = await store.trigger(tx, one.trigger_id)
            payload = await store.payload_to_start(tx, one, self._clock.now())
            if view is None or payload is None:
                return
            if view.paused:  # it was, while the event was being kept
                await store.started(tx, one)
                return
        event = TriggerEvent(event=one.name, key=one.key, payload=payload)
        request = self._request(view, event, occurrence(view.trigger_id, one.name, one.key))
        try:
            run_id = await start_once(self._runs, replace(ctx, user_id=view.user_id), request)
        except BailiwickError as error:
            await self._record(ctx, view, None, error, one)
        else:
            await self._record(ctx, view, run_id, None, one)

    def _request(self, view: TriggerView, event: TriggerEvent, key: str) -> RunRequest:
        return RunRequest(
            workflow=view.workflow, input=input_with(view.input, event), idempotency_key=key, source="trigger"
        )

    async def _record(
        self,
        ctx: TenantContext,
        view: TriggerView,
        run_id: RunId | None,
        error: BailiwickError | None = None,
        one: ToStart | None = None,
    ) -> None:
        """What became of a webhook or event, in the transaction that takes the event off what is to be started."""
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            if one is not None and error is not None and passes_by_itself(error):
                await store.postpone(tx, view.trigger_id, now + retry_delay(error), now)
            elif one is not None:
                await store.started(tx, one)
            await store.record_fire(tx, view.trigger_id, now, run_id, None if error is None else describe(error))
        await self._tell(ctx, view.trigger_id)
