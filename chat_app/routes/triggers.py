"""Triggers: runs started by an event or a webhook; and the address that webhooks are sent to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from chat_app.api import (
    PREFIX,
    WITH_BODY,
    Caller,
    Id,
    Services,
    api_router,
    api_services,
    needs,
    read_body,
    read_json,
    take_turn,
)
from chat_app.problems import responses
from chat_app.routes.runs import ADMISSION
from core.errors import (
    BailiwickError,
    Conflict,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
    WorkflowUnknown,
    WrongRegion,
)
from core.tenancy import ActorKind, Scope
from core.triggers.model import HOOKS, Delivery, TriggerKind
from core.triggers.service import STARTING

router = api_router("Triggers")


class TriggerIn(BaseModel):
    """A trigger to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"kind": "webhook", "name": "Signed contracts", "workflow": "event-received"},
                {
                    "kind": "event",
                    "name": "Late payments",
                    "event": "payment-late",
                    "workflow": "event-received",
                },
            ]
        },
    )

    kind: TriggerKind
    name: str = Field(max_length=200)
    event: str | None = Field(None, max_length=200, description="Of kind event: the name of the events.")
    workflow: str = Field(min_length=1, max_length=200, description="Its input has a field `event`.")
    input: dict[str, Any] = Field(default_factory=dict, description="The rest of the run's input.")


class TriggerEdit(BaseModel):
    """What to change; what is absent stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Contracts", "version": 1}]})

    name: str | None = Field(None, max_length=200)
    event: str | None = Field(None, max_length=200)
    workflow: str | None = Field(None, min_length=1, max_length=200)
    input: dict[str, Any] | None = None
    version: int | None = Field(None, ge=1, description="The version that was edited: 409 when there is a newer one.")


class TriggerOut(BaseModel):
    """A trigger."""

    model_config = ConfigDict(from_attributes=True)

    trigger_id: str
    kind: TriggerKind
    name: str
    event: str | None = Field(description="The name of the events; null for a webhook.")
    hook: str | None = Field(description="Where to send the webhooks; null for events.")
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    last_fired_at: datetime | None = Field(description="The latest webhook or event that was dealt with.")
    last_run_id: str | None
    last_error: dict[str, Any] | None = Field(description="Why that one started no run (yet).")
    created_by: str
    created_at: datetime
    updated_at: datetime


class TriggersOut(BaseModel):
    """All triggers, the oldest first."""

    triggers: list[TriggerOut]


class TriggerMadeOut(BaseModel):
    """A trigger and its signing secret."""

    model_config = ConfigDict(from_attributes=True)

    trigger: TriggerOut
    secret: str | None = Field(description="`whsec_…`, of a webhook; shown this once.")


@router.get("/triggers", **needs(Scope.SCHEDULES_READ))
async def list_triggers(caller: Caller, services: Services) -> TriggersOut:
    """All triggers of the tenant, without their secrets."""
    views = await services.platform.triggers.list(caller)
    return TriggersOut(triggers=[TriggerOut.model_validate(view) for view in views])


@router.post("/triggers", status_code=201, **needs(Scope.SCHEDULES_WRITE, WorkflowUnknown, QuotaExceeded, body=True))
async def create_trigger(body: TriggerIn, response: Response, caller: Caller, services: Services) -> TriggerMadeOut:
    """Start a workflow at every webhook, or at every event of a name. Needs the right runs:write as well."""
    made = await services.platform.triggers.create(caller, **body.model_dump())
    response.headers["Location"] = f"{PREFIX}/triggers/{made.trigger.trigger_id}"
    return TriggerMadeOut.model_validate(made)


@router.get("/triggers/{trigger_id}", **needs(Scope.SCHEDULES_READ, NotFound))
async def get_trigger(trigger_id: Id, caller: Caller, services: Services) -> TriggerOut:
    """One trigger."""
    return TriggerOut.model_validate(await services.platform.triggers.get(caller, trigger_id))


@router.patch("/triggers/{trigger_id}", **needs(Scope.SCHEDULES_WRITE, NotFound, Conflict, WorkflowUnknown, body=True))
async def edit_trigger(trigger_id: Id, body: TriggerEdit, caller: Caller, services: Services) -> TriggerOut:
    """Change a trigger; its kind and its secret stay."""
    return TriggerOut.model_validate(await services.platform.triggers.edit(caller, trigger_id, **body.model_dump()))


@router.delete("/triggers/{trigger_id}", status_code=204, **needs(Scope.SCHEDULES_WRITE, NotFound))
async def delete_trigger(trigger_id: Id, caller: Caller, services: Services) -> None:
    """Remove a trigger; its runs stay."""
    await services.platform.triggers.delete(caller, trigger_id)


@router.post("/triggers/{trigger_id}/pause", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def pause_trigger(trigger_id: Id, caller: Caller, services: Services) -> TriggerOut:
    """Start nothing until it is resumed: webhooks are refused, events pass by."""
    return TriggerOut.model_validate(await services.platform.triggers.pause(caller, trigger_id))


@router.post("/triggers/{trigger_id}/resume", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def resume_trigger(trigger_id: Id, caller: Caller, services: Services) -> TriggerOut:
    """Start runs again; nothing is made up for."""
    return TriggerOut.model_validate(await services.platform.triggers.resume(caller, trigger_id))


@router.post("/triggers/{trigger_id}/rotate-secret", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def rotate_secret(trigger_id: Id, caller: Caller, services: Services) -> TriggerMadeOut:
    """Another signing secret; the one before is useless at once. 422: it is no webhook."""
    return TriggerMadeOut.model_validate(await services.platform.triggers.rotate_secret(caller, trigger_id))


# Webhooks -------------------------------------------------------------------------------------------------


class HookRoute(APIRoute):
    """Signature, then rate, then body; then the route. The caller is the trigger."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, which would read the body first."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            services = api_services(request)
            trigger_id, headers = request.path_params["trigger_id"], request.headers
            delivery = Delivery(
                id=headers.get("webhook-id", ""),
                timestamp=headers.get("webhook-timestamp", ""),
                signature=headers.get("webhook-signature", ""),
                body=await read_body(request),
            )
            tenant_id = await services.platform.triggers.identify(trigger_id, delivery)
            ctx = await services.platform.tenants.context_for(
                tenant_id, actor_kind=ActorKind.TRIGGER, actor_id=trigger_id, scopes=STARTING
            )
            request.state.caller = ctx
            await take_turn(services, ctx)
            return await handle(await read_json(request))

        return guarded


hooks = APIRouter(tags=["Triggers"], route_class=HookRoute)

_REFUSALS: tuple[type[BailiwickError], ...] = (
    *(Unauthenticated, WrongRegion, RateLimited, Unavailable),
    *WITH_BODY,
    *ADMISSION,
)


class WebhookHeaders(BaseModel):
    """What Standard Webhooks sends beside the body."""

    webhook_id: str = Field(description="Names the webhook: the same one starts one run. No full stops.")
    webhook_timestamp: str = Field(description="When it is sent, in Unix seconds; at most 5 minutes off.")
    webhook_signature: str = Field(description="`v1,…`; several with a space between them.")


class HookIn(RootModel[JsonValue]):
    """Any JSON: the run finds it in `event.payload` of its input."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"contract": 17, "signed_by": "mia"}]})


class HookOut(BaseModel):
    """The run that the webhook started."""

    run_id: str
    new: bool = Field(description="False: this webhook came before, and this is the run it started.")


@hooks.post(
    HOOKS.removeprefix(PREFIX) + "/{trigger_id}",
    status_code=202,
    openapi_extra={"security": []},
    responses=responses(*_REFUSALS),
)
async def receive_webhook(
    trigger_id: Id, body: HookIn, headers: Annotated[WebhookHeaders, Header()], caller: Caller, services: Services
) -> HookOut:
    """Start the run of a webhook, signed as Standard Webhooks says; it needs no other identity.

    401: the signature is not the trigger's, or too old; or there is no such webhook, or it is paused. 409: the
    webhook came before with another body, or the trigger was edited in between.
    """
    run_id, new = await services.platform.triggers.deliver(caller, trigger_id, headers.webhook_id, body.root)
    return HookOut(run_id=run_id, new=new)
