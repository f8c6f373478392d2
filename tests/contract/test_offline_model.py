"""The offline model speaks OpenAI's APIs: the clients everybody uses work against it, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from agents.tool import FunctionTool
from langchain_openai import ChatOpenAI
from numpy.typing import NDArray
from openai import AsyncOpenAI, BadRequestError
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr

from core.clock import SystemClock
from core.models.offline.server import OfflineServer

FILE = "\n[attachment: apps.csv]"


class Finding(BaseModel):
    outcome: str
    confidence: float
    reasons: list[str]


@pytest.fixture
async def client(offline_model: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=offline_model, api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture(params=["responses", "chat"])
def model(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Model:
    """The same model behind either API."""
    kind = OpenAIResponsesModel if request.param == "responses" else OpenAIChatCompletionsModel
    return kind(model="gpt-5-mini", openai_client=client)


def tools(made: list[tuple[str, Any]]) -> list[FunctionTool]:
    """Tools that write down how they were called."""

    @function_tool
    def start_loan_runs(attachment: str, limit: int | None = None) -> str:
        """Start one run for each application."""
        made.append(("start_loan_runs", (attachment, limit)))
        return json.dumps({"started": limit or 1319})

    @function_tool
    def runs_progress() -> str:
        """Counts of runs by status."""
        made.append(("runs_progress", ()))
        return json.dumps({"total": 20, "succeeded": 12, "running": 8})

    return [start_loan_runs, runs_progress]


def agent(model: Model, made: list[tuple[str, Any]]) -> Agent[None]:
    settings = ModelSettings(include_usage=True, parallel_tool_calls=True)
    return Agent[None](name="chat", instructions="Help.", model=model, tools=[*tools(made)], model_settings=settings)


QUIET = RunConfig(tracing_disabled=True)
SAID = "Process the first 20 and then tell me how far it is" + FILE
TOLD = (
    "I started 20 loan-approval runs from apps.csv. Ask me how far it is at any time.\n\n"
    "Of 20 runs: succeeded 12, running 8."
)


async def test_an_agent_calls_tools_and_tells_their_answers(model: Model) -> None:
    made: list[tuple[str, Any]] = []
    result = await Runner.run(agent(model, made), SAID, run_config=QUIET)
    assert made == [("start_loan_runs", ("apps.csv", 20)), ("runs_progress", ())]
    assert result.final_output == TOLD
    usage = result.context_wrapper.usage
    assert usage.requests == 2
    assert usage.input_tokens > usage.output_tokens > 20


async def test_a_streaming_agent_gets_the_same_in_pieces(model: Model) -> None:
    made: list[tuple[str, Any]] = []
    result = Runner.run_streamed(agent(model, made), SAID, run_config=QUIET)
    pieces = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert len(pieces) > 3
    assert "".join(pieces) == result.final_output == TOLD
    assert [name for name, _ in made] == ["start_loan_runs", "runs_progress"]
    assert result.context_wrapper.usage.output_tokens > 20


async def test_an_agent_with_an_output_type_gets_a_valid_value(model: Model) -> None:
    reviewer = Agent[None](name="compliance", instructions="Assess.", model=model, output_type=Finding)
    report = {"derogatory_reports": 4, "active_accounts": 3, "yearly_income_usd": 52000}
    result = await Runner.run(reviewer, json.dumps(report), run_config=QUIET)
    found = result.final_output_as(Finding, raise_if_incorrect_type=True)
    assert (found.outcome, found.confidence) == ("decline", 0.97)


async def test_a_handoff_is_a_tool_like_any_other(model: Model) -> None:
    desk = Agent[None](name="review desk", instructions="Help reviewers.", model=model)
    first = Agent[None](name="front", instructions="Help.", model=model, handoffs=[desk])
    result = await Runner.run(first, "To the review desk, please", run_config=QUIET)
    assert result.last_agent.name == "review desk"


async def test_the_openai_client_reads_both_apis_and_their_provenance(client: AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(model="any-name", messages=[{"role": "user", "content": "hello"}])
    assert (chat.model, chat.system_fingerprint) == ("any-name", "offline-1")
    assert chat.usage is not None
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    response = await client.responses.create(model="any-name", input="hello")
    assert response.output_text == chat.choices[0].message.content
    assert (response.model_extra or {})["system_fingerprint"] == "offline-1"
    assert "gpt-5-mini" in [listed.id async for listed in client.models.list()]


async def test_langchain_gets_parallel_tool_calls(offline_model: str) -> None:
    class Triple(BaseModel):
        """Who does what to whom."""

        subject: str
        predicate: str
        object: str

    class Fact(BaseModel):
        """One statement."""

        content: str

    session = "=== Human Message ===\n\nRemember that we never approve below 620. Our compliance officer is Dana."
    options: dict[str, Any] = {"model": "m", "base_url": offline_model, "api_key": SecretStr("unused")}
    llm = ChatOpenAI(**options, use_responses_api=False)
    answer = await llm.bind_tools([Triple, Fact]).ainvoke(f"Extract.\n<session_1>\n{session}\n</session_1>")
    assert [call["name"] for call in answer.tool_calls] == ["Triple", "Fact", "Triple", "Fact"]
    assert answer.tool_calls[2]["args"] == {"subject": "compliance officer", "predicate": "is", "object": "Dana"}


async def test_embeddings_come_as_numbers_and_packed_alike(client: AsyncOpenAI) -> None:
    texts = ["We never approve below 620", "The cat sleeps"]
    plain = await client.embeddings.create(model="m", input=texts, encoding_format="float", dimensions=384)
    packed = await client.embeddings.create(model="m", input=texts)
    assert [len(item.embedding) for item in plain.data] == [384, 384]
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert plain.usage.total_tokens > 8
    with pytest.raises(BadRequestError, match="384"):
        await client.embeddings.create(model="m", input="x", dimensions=1536)


async def test_a_key_is_demanded_when_one_is_set() -> None:
    class NoVectors:
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise AssertionError("no request with a wrong key gets this far")

        def count_tokens(self, texts: Sequence[str]) -> int:
            raise AssertionError("no request with a wrong key gets this far")

    app = OfflineServer(NoVectors(), (), SystemClock(), CollectorRegistry(), api_key="right").app()
    body = {"model": "m", "input": "hello"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://offline") as plain:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            refused = await plain.post("/v1/embeddings", json=body, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        allowed = await plain.post("/v1/responses", json=body, headers={"Authorization": "Bearer right"})
    assert allowed.status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("chat/completions", b"{not json", 400, "invalid_json"),
        ("chat/completions", b"[" * 100_000, 400, "invalid_json"),
        ("chat/completions", b'{"model": "m", "messages": [' + b" " * 1_000_001 + b"]}", 413, "request_too_large"),
        ("chat/completions", b'{"model": "m"}', 400, "invalid_request"),
        ("chat/completions", b'{"messages": [{"role": "user", "content": "hi"}]}', 400, "invalid_request"),
        ("chat/completions", b'{"model": "m", "messages": [{"role": "wizard"}]}', 400, "invalid_request"),
        ("chat/completions", b'{"model": "m", "messages": [7]}', 400, "invalid_request"),
        ("responses", b'{"model": "m", "input": {"a": 1}}', 400, "invalid_request"),
        ("responses", b'{"model": "m", "input": "hi", "previous_response_id": "resp_1"}', 400, "invalid_request"),
        ("responses", b'{"model": "m", "input": "hi", "tool_choice": "sometimes"}', 400, "invalid_request"),
        ("embeddings", b'{"model": "m", "input": []}', 400, "invalid_request"),
        ("embeddings", b'{"model": "m", "input": ["", 3]}', 400, "invalid_request"),
    ],
)
async def test_hostile_requests_get_an_error_in_openais_form(
    offline_model: str, path: str, content: bytes, status: int, code: str
) -> None:
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"{offline_model}/{path}", content=content)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


async def test_unknown_fields_are_ignored(offline_model: str) -> None:
    body = {"model": "m", "input": "hello", "seed": 1, "reasoning": {"effort": "low"}, "made_up": [1]}
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"{offline_model}/responses", json=body)
    assert answer.json()["status"] == "completed"


async def test_it_tells_its_health_and_counts_what_it_did(offline_model: str) -> None:
    root = offline_model.removesuffix("/v1")
    async with httpx.AsyncClient() as plain:
        await plain.post(f"{offline_model}/responses", json={"model": "m", "input": "hello"})
        assert (await plain.get(f"{root}/healthz")).json() == {"status": "ok"}
        metrics = (await plain.get(f"{root}/metrics")).text
    assert 'offline_model_requests_total{route="responses",status="200"}' in metrics
    assert 'offline_model_tokens_total{direction="in"}' in metrics
