"""Learning a turn as a run: durable, in the background, owned by whoever said it, patient with a model that is away."""

from __future__ import annotations

from typing import Any

from core.runs.model import Cause, Lane, RunRequest, RunState, RunView
from core.settings import Settings
from memory.bootstrap import open_memory
from tests.fixtures.upstream import upstream
from tests.fixtures.workers import Site, site_in, working

TURN: dict[str, Any] = {
    "thread_id": "thr_1",
    "messages": [
        {"role": "user", "text": "We never approve below 620. I prefer short answers.", "entry_id": "m1"},
        {"role": "assistant", "text": "Understood.", "entry_id": "m2"},
    ],
}


def request() -> RunRequest:
    return RunRequest("memory-extraction", TURN, idempotency_key="memory:thr_1:m1", source="chat")


async def texts(site: Site, *, reviewer: bool = False) -> list[str]:
    async with open_memory(site.platform) as memory:
        return sorted(one.text for one in await memory.list(site.reviewer if reviewer else site.admin))


async def test_a_turn_is_learned_in_the_background_for_the_person_who_said_it(
    settings_with_graph: Settings, offline_model: str
) -> None:
    given = settings_with_graph.model_copy(update={"model_url": offline_model})
    async with site_in(given) as site, working(site):
        run, created = await site.platform.runs.submit(site.admin, request())

        async def look() -> RunView | None:
            await site.platform.queue.wake_due()  # it sleeps if the graph was busy for longer than a recall waits
            seen = await site.platform.runs.get(site.admin, run.run_id)
            return seen if seen.state.final else None

        ended = await site.until(look)
        assert created
        assert (ended.state, ended.lane, ended.outcome) == (RunState.SUCCEEDED, Lane.BACKGROUND, "learned")
        assert ended.output == {"memories": 2, "in_graph": True}
        assert await texts(site) == ["I prefer short answers.", "We never approve below 620."]
        assert await texts(site, reviewer=True) == ["We never approve below 620."]
        again, created = await site.platform.runs.submit(site.admin, request())
        assert (again.run_id, created) == (run.run_id, False)


async def test_while_no_model_answers_the_run_waits_for_free_and_learns_nothing_yet(settings: Settings) -> None:
    async with upstream() as endpoint:
        endpoint.script.extend([503] * 50)
        given = settings.model_copy(update={"model_url": endpoint.url})
        async with site_in(given) as site, working(site):
            run, _ = await site.platform.runs.submit(site.admin, request())
            [waiting] = await site.runs_until([run], lambda one: one.state is RunState.WAITING)
            assert waiting.cause is Cause.TIMER
            steps = await site.platform.runs.steps(site.admin, run.run_id)
            assert steps[0].name == "learn"
            assert await texts(site) == []
