"""Triggers end to end: signed webhooks over HTTP, and events that start runs whatever crashes in between."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded, WorkflowUnknown
from core.runs.model import MAX_INPUT_BYTES, RunView
from core.settings import Settings
from core.tenancy import Policy, RateLimit, Scope, TenantContext
from core.triggers.model import MAX_TRIGGERS, TriggerKind, TriggerView
from core.triggers.service import Made, TriggerService
from scheduler.triggers import Starter
from tests.fixtures.web import LOAN, Web, web_in

DAY_S = 86_400
BODY = {"contract": 17}


def signed(made: Made, clock: FakeClock, body: bytes, webhook_id: str = "msg_1", age_s: int = 0) -> dict[str, str]:
    """The headers that a sender of Standard Webhooks adds, made as the standard describes it."""
    assert made.secret is not None
    timestamp = str(int(clock.now().timestamp()) - age_s)
    key = base64.b64decode(made.secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


@dataclass(frozen=True, slots=True)
class House:
    """The application on a clock of ours, its bank, and a stranger's client."""

    web: Web
    clock: FakeClock
    bank: TenantContext
    starter: Starter
    nobody: httpx.AsyncClient

    @property
    def triggers(self) -> TriggerService:
        """The room."""
        return self.web.platform.triggers

    async def webhook(self, ctx: TenantContext | None = None, **given: Any) -> Made:
        """A webhook, of the bank unless told otherwise."""
        values = {"kind": TriggerKind.WEBHOOK, "name": "Contracts", "workflow": "event-received"} | given
        return await self.triggers.create(ctx or self.bank, **values)

    async def listener(self, event: str = "paid", ctx: TenantContext | None = None, **given: Any) -> TriggerView:
        """A trigger that listens for an event."""
        values = {"kind": TriggerKind.EVENT, "name": event, "event": event, "workflow": "event-received"} | given
        return (await self.triggers.create(ctx or self.bank, **values)).trigger

    async def call(self, made: Made, body: Any = None, **how: Any) -> httpx.Response:
        """A webhook, signed and sent."""
        content = json.dumps(BODY if body is None else body).encode()
        return await self.post(made.trigger.trigger_id, content, signed(made, self.clock, content, **how))

    async def post(self, trigger_id: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """Anything, sent to a webhook's address."""
        return await self.nobody.post(f"/api/v1/hooks/{trigger_id}", content=content, headers=headers)

    async def send(self, name: str, key: str, payload: Any, ctx: TenantContext | None = None) -> bool:
        """An event, and nothing else: as if the web process died right after."""
        return await self.web.platform.runs.send_event(ctx or self.bank, name, key, payload)

    async def runs(self, ctx: TenantContext | None = None) -> list[RunView]:
        """The runs, oldest first."""
        return list(reversed((await self.web.platform.runs.list(ctx or self.bank))[0]))

    async def get(self, trigger: TriggerView) -> TriggerView:
        """The bank's trigger as it is now."""
        return await self.triggers.get(self.bank, trigger.trigger_id)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    clock = FakeClock()
    async with web_in(settings, clock) as web, web.client() as nobody:
        bank = await web.admin("bank", Policy(daily_runs=1_000))
        yield House(web, clock, bank, Starter(web.platform, CollectorRegistry()), nobody)


# Webhooks -------------------------------------------------------------------------------------------------


async def test_a_signed_webhook_starts_one_run_however_often_it_is_delivered(house: House) -> None:
    made = await house.webhook()
    first = await house.call(made)
    assert (first.status_code, first.json()["new"]) == (202, True)
    house.clock.advance(3_600)
    again = await house.call(made)
    assert (again.status_code, again.json()) == (202, {"run_id": first.json()["run_id"], "new": False})
    other = await house.call(made, webhook_id="msg_2")
    assert other.json()["new"] is True
    run, _ = await house.runs()
    assert (run.run_id, run.source, run.workflow) == (first.json()["run_id"], "trigger", "event-received")
    assert run.input == {"event": {"event": "Contracts", "key": "msg_1", "payload": BODY}}
    assert run.user_id == house.bank.user_id
    [submitted] = await house.web.platform.runs.events(house.bank, run.run_id)
    assert submitted.data["actor"] == f"trigger:{made.trigger.trigger_id}"
    view = await house.get(made.trigger)
    assert (view.last_run_id, view.last_fired_at, view.last_error) == (other.json()["run_id"], house.clock.now(), None)


async def test_every_webhook_that_is_not_to_be_trusted_gets_the_same_answer_and_starts_nothing(house: House) -> None:
    made, paused, gone, turned = [await house.webhook() for _ in range(4)]
    listener = await house.listener()
    union = await house.web.admin("union")
    theirs = await house.webhook(union)
    await house.triggers.pause(house.bank, paused.trigger.trigger_id)
    await house.triggers.delete(house.bank, gone.trigger.trigger_id)
    renewed = await house.triggers.rotate_secret(house.bank, turned.trigger.trigger_id)
    good = json.dumps(BODY).encode()
    headers = signed(made, house.clock, good)
    here, elsewhere = made.trigger.trigger_id, theirs.trigger.trigger_id
    asked = [
        (here, b'{"contract": 18}', headers),
        (here, good, signed(made, house.clock, good, age_s=301)),
        (here, good, signed(made, house.clock, good, age_s=-301)),
        (here, good, headers | {"webhook-id": "msg_2"}),
        (here, good, headers | {"webhook-signature": "v1,AAAA"}),
        *((here, good, {k: v for k, v in headers.items() if k != missing}) for missing in list(headers)[1:]),
        (here, b"{", headers),
        (elsewhere, good, headers),
        (here, good, signed(theirs, house.clock, good)),
        (paused.trigger.trigger_id, good, signed(paused, house.clock, good)),
        (gone.trigger.trigger_id, good, signed(gone, house.clock, good)),
        (turned.trigger.trigger_id, good, signed(turned, house.clock, good)),
        (listener.trigger_id, good, headers),
        ("trg_06g2kq8v3m4n5p6r7s8t9v0w1", good, headers),
        ("x", good, headers),
    ]
    answers = [await house.post(*one) for one in asked]
    assert {answer.status_code for answer in answers} == {401}
    told = {answer.text.replace(answer.headers["x-request-id"], "…") for answer in answers}
    assert len(told) == 1
    assert {tuple(sorted(answer.headers)) for answer in answers} == {tuple(sorted(answers[0].headers))}
    assert await house.runs() == []
    assert await house.runs(union) == []
    assert (await house.call(renewed)).status_code == 202
    await house.triggers.resume(house.bank, paused.trigger.trigger_id)
    assert (await house.call(paused)).status_code == 202


async def test_a_trigger_acts_for_its_own_tenant_only(house: House) -> None:
    union = await house.web.admin("union")
    ours, theirs = await house.webhook(), await house.webhook(union)
    assert [(await house.call(made)).json()["new"] for made in (ours, theirs)] == [True, True]
    assert len(await house.runs()) == len(await house.runs(union)) == 1
    for act in ("get", "pause", "resume", "rotate_secret", "delete", "edit"):
        with pytest.raises(NotFound):
            await getattr(house.triggers, act)(union, ours.trigger.trigger_id)
    assert [view.trigger_id for view in await house.triggers.list(union)] == [theirs.trigger.trigger_id]


async def test_what_a_trusted_sender_got_wrong_is_told_and_kept(house: House) -> None:
    made = await house.webhook()

    async def refused(content: bytes, status: int, code: str, **how: Any) -> None:
        headers = signed(made, house.clock, content, **how)
        answer = await house.post(made.trigger.trigger_id, content, headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    await refused(b"{", 422, "invalid_input")
    await refused(b'"\\u0000"', 422, "invalid_input")
    await refused(b'"' + b"x" * (256 * 1024) + b'"', 413, "payload_too_large")
    await refused(b'"' + b"x" * (256 * 1024 - 10) + b'"', 413, "payload_too_large")
    assert (await house.get(made.trigger)).last_error["code"] == "payload_too_large"  # type: ignore[index]
    text = signed(made, house.clock, b"{}") | {"content-type": "text/plain"}
    assert (await house.post(made.trigger.trigger_id, b"{}", text)).status_code == 415
    assert await house.runs() == []
    assert (await house.call(made)).status_code == 202
    assert (await house.get(made.trigger)).last_error is None
    await refused(b'{"another": "body"}', 409, "idempotency_conflict")
    assert len(await house.runs()) == 1


async def test_quotas_and_the_rate_of_the_tenant_hold_for_webhooks(house: House) -> None:
    rate = RateLimit(limit=3, window_s=60)
    small = await house.web.admin("small", Policy(daily_runs=1, rate_limits={"api": rate}))
    made = await house.webhook(small)
    assert (await house.call(made)).status_code == 202
    refused = await house.call(made, webhook_id="msg_2")
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) > 1
    view = await house.triggers.get(small, made.trigger.trigger_id)
    assert (view.last_error or {})["code"] == "quota_exceeded"
    stranger = [await house.post(made.trigger.trigger_id, b"{}", {}) for _ in range(5)]
    assert {answer.status_code for answer in stranger} == {401}, "a stranger uses up nothing"
    assert (await house.call(made)).json()["new"] is False
    assert (await house.call(made)).json()["code"] == "rate_limited"


# Events ---------------------------------------------------------------------------------------------------


async def test_an_event_starts_one_run_of_every_trigger_of_its_name_whatever_crashes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await house.listener(), await house.listener(name="Second")
    await house.listener("other")
    paused = await house.listener()
    await house.triggers.pause(house.bank, paused.trigger_id)
    assert await house.send("paid", "7", {"usd": 120})  # and the process that sent it is gone
    assert await house.runs() == []

    with monkeypatch.context() as patch:
        patch.setattr(TriggerService, "_record", _crash)
        with pytest.raises(RuntimeError):
            await house.starter.run()  # both were submitted, neither was taken off what is to be started
    assert len(await house.runs()) == 2
    assert await house.starter.run() == 0.0
    assert await house.starter.run() is None

    runs = await house.runs()
    assert [run.source for run in runs] == ["trigger", "trigger"]
    assert [run.input for run in runs] == [{"event": {"event": "paid", "key": "7", "payload": {"usd": 120}}}] * 2
    assert {(await house.get(view)).last_run_id for view in (first, second)} == {run.run_id for run in runs}
    assert not await house.send("paid", "7", {"usd": 999})
    assert await house.starter.run() is None
    assert await house.send("paid", "8", {"usd": 1})
    await house.starter.run()
    assert len(await house.runs()) == 4


async def _crash(*_: object, **__: object) -> None:
    raise RuntimeError


async def test_an_event_that_is_not_kept_starts_nothing(house: House) -> None:
    await house.listener()
    with pytest.raises(InvalidInput):
        await house.send("paid", "1", float("nan"))
    assert await house.starter.run() is None
    assert await house.send("paid", "1", {})


async def test_a_refusal_that_passes_is_tried_again_and_another_stands_with_the_trigger(house: House) -> None:
    small = await house.web.admin("small", Policy(daily_runs=1))
    trigger = await house.listener(ctx=small)
    await house.listener()
    for key in ("1", "2", "3"):
        assert await house.send("paid", key, {}, small)
    assert await house.send("paid", "1", {})
    assert await house.starter.run() == 0.0
    assert (len(await house.runs(small)), len(await house.runs())) == (1, 1)
    view = await house.triggers.get(small, trigger.trigger_id)
    assert (view.last_error or {})["code"] == "quota_exceeded"
    left_s = await house.starter.run()
    assert left_s is not None
    assert 0 < left_s <= 3_600
    for _ in range(2):
        house.clock.advance(DAY_S)
        await house.starter.run()
    assert [run.input["event"]["key"] for run in await house.runs(small)] == ["1", "2", "3"]
    assert (await house.triggers.get(small, trigger.trigger_id)).last_error is None
    assert await house.starter.run() is None

    assert await house.send("paid", "large", {"text": "x" * (MAX_INPUT_BYTES - 20)}, small)  # an input is a little more
    house.clock.advance(DAY_S)
    await house.starter.run()
    view = await house.triggers.get(small, trigger.trigger_id)
    assert (view.last_error or {})["code"] == "payload_too_large"
    assert await house.starter.run() is None


async def test_tenants_take_turns_when_one_of_them_sent_many_events(house: House) -> None:
    union = await house.web.admin("union")
    await house.listener()
    await house.listener(ctx=union)
    for number in range(5):
        await house.send("paid", str(number), {})
    house.clock.advance(1)
    await house.send("paid", "late", {}, union)
    assert [one.tenant_id for one in await house.triggers.due(2)] == ["bank", "union"]


async def test_pausing_or_deleting_a_trigger_starts_nothing_that_was_left(house: House) -> None:
    trigger, gone = await house.listener(), await house.listener()
    await house.send("paid", "1", {})
    await house.triggers.pause(house.bank, trigger.trigger_id)
    await house.triggers.delete(house.bank, gone.trigger_id)
    assert await house.starter.run() is None
    await house.triggers.resume(house.bank, trigger.trigger_id)
    assert await house.starter.run() is None
    assert await house.runs() == []


async def test_an_event_sent_through_the_api_wakes_the_scheduler_and_wakes_it_for_nothing_else(house: House) -> None:
    await house.listener()
    async with (
        house.web.client(await house.web.key("bank")) as http,
        house.web.platform.bus.listen("scheduler") as bell,
    ):
        assert (await http.post("/api/v1/events", json={"name": "other", "key": "1"})).json() == {"new": True}
        assert not await bell.wait(0.3)
        assert (await http.post("/api/v1/events", json={"name": "paid", "key": "1"})).json() == {"new": True}
        assert await bell.wait(5)


# Editing --------------------------------------------------------------------------------------------------


async def test_a_trigger_is_made_edited_paused_rotated_and_removed_over_the_api(house: House) -> None:
    async with house.web.client(await house.web.key("bank")) as http:
        body = {"kind": "webhook", "name": "Contracts", "workflow": "event-received"}
        made = await http.post("/api/v1/triggers", json=body)
        assert made.status_code == 201
        secret, path = made.json()["secret"], made.headers["location"]
        trigger = (await http.get(path)).json()
        assert trigger == made.json()["trigger"]
        assert trigger["hook"] == f"/api/v1/hooks/{trigger['trigger_id']}"
        content = json.dumps(BODY).encode()
        headers = signed(
            Made(await house.triggers.get(house.bank, trigger["trigger_id"]), secret), house.clock, content
        )
        assert (await house.nobody.post(trigger["hook"], content=content, headers=headers)).status_code == 202
        assert secret not in (await http.get("/api/v1/triggers")).text

        assert (await http.patch(path, json={"name": "Signed", "version": 1})).json()["name"] == "Signed"
        assert (await http.patch(path, json={"name": "x", "version": 1})).status_code == 409
        assert (await http.patch(path, json={"event": "paid"})).json()["errors"][0]["pointer"] == "/event"
        assert (await http.post(f"{path}/pause")).json()["paused"] is True
        assert (await http.post(f"{path}/resume")).json()["paused"] is False
        rotated = (await http.post(f"{path}/rotate-secret")).json()
        assert rotated["secret"].startswith("whsec_")
        assert rotated["secret"] != secret

        listener = await http.post("/api/v1/triggers", json=body | {"kind": "event", "event": "paid"})
        assert (listener.json()["secret"], listener.json()["trigger"]["hook"]) == (None, None)
        assert (await http.post(f"{listener.headers['location']}/rotate-secret")).status_code == 422
        unfit = await http.post("/api/v1/triggers", json=body | {"workflow": "loan-approval", "input": LOAN["input"]})
        assert unfit.status_code == 422
        assert [(await http.delete(path)).status_code for _ in range(2)] == [204, 404]
    acts = {entry.act for entry in await house.web.platform.audit.recent(house.bank)}
    assert {f"trigger.{act}" for act in ("create", "edit", "pause", "resume", "rotate_secret", "delete")} <= acts
    entries = await house.web.platform.audit.recent(house.bank)
    assert "whsec_" not in json.dumps([[entry.before, entry.after] for entry in entries])


async def test_a_trigger_that_cannot_work_is_refused_with_a_reason(house: House) -> None:
    for given, error, says in (
        ({"kind": TriggerKind.EVENT}, InvalidInput, "name of an event"),
        ({"event": "paid"}, InvalidInput, "no event"),
        ({"name": " "}, InvalidInput, "A name has"),
        ({"workflow": "unheard-of"}, WorkflowUnknown, "unheard-of"),
        ({"workflow": "loan-approval", "input": LOAN["input"]}, InvalidInput, "does not fit|no field 'event'"),
        ({"input": {"more": 1}}, InvalidInput, "does not fit workflow event-received"),
    ):
        with pytest.raises(error, match=says):
            await house.webhook(**given)
    with pytest.raises(Conflict):
        await house.triggers.edit(house.bank, (await house.webhook()).trigger.trigger_id, name="x", version=7)
    reader = await house.web.platform.tenants.identify_key(await house.web.key("bank", Scope.SCHEDULES_READ))
    with pytest.raises(Forbidden):
        await house.webhook(reader)
    for _ in range(MAX_TRIGGERS - len(await house.triggers.list(house.bank))):
        await house.webhook()
    with pytest.raises(QuotaExceeded):
        await house.webhook()
