"""What people do to one run, from its page: each act is asked for, explained and confirmed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import streamlit as st

from core.bootstrap import Platform
from core.ids import TenantId
from core.runs.history import RunLine, history
from core.runs.model import RunState, RunView
from core.tenancy import Scope, TenantContext
from core.usage.model import MICRO, format_usd
from ops_dashboard import session
from ops_dashboard.session import Viewer
from ops_dashboard.words import literal

_ASKED = "run_asked"
_MADE = "run_made"
_OPERATING = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.TENANT_WRITE})
_ENDED_BADLY = frozenset(state for state in RunState if state.final and state is not RunState.SUCCEEDED)
Deed = Callable[[Platform, Viewer], Awaitable[Any]]
Steps = Sequence[tuple[int, str]]
"""Numbers and names of the steps that a run has come to."""


def buttons(run: RunView) -> None:
    """The acts that fit the run; the others are there, and greyed."""
    retry, fork, pause, cancel = (
        ("retry", "Retry", ":material/replay:", run.state in _ENDED_BADLY),
        ("fork", "Fork", ":material/fork_right:", True),
        ("pause", "Pause", ":material/pause:", not run.state.final and not run.undoing),
        ("cancel", "Cancel", ":material/cancel:", not run.state.final or run.state is RunState.DEAD),
    )
    if run.held:
        pause = ("resume", "Resume", ":material/play_arrow:", True)
    for what, label, icon, fits in (retry, fork, pause, cancel):
        _button(what, label, icon, run.run_id, fits=fits)


def fund(run_id: str, state: RunState) -> None:
    """The act that is for admins, and for operators in the name of its tenant: give the run another budget."""
    _button("budget", "Budget", ":material/payments:", run_id, fits=state is not RunState.SUCCEEDED)


def _button(what: str, label: str, icon: str, run_id: str, *, fits: bool) -> None:
    if st.button(label, icon=icon, key=what, disabled=not fits):
        st.session_state[_ASKED] = (what, run_id)
        st.rerun()


def replay(run_id: str) -> None:
    """The act that is for operators, at a dead run."""
    _button("replay", "Replay", ":material/replay:", run_id, fits=True)


def ask(run_id: str) -> None:
    """Show what was asked for about this run.

    A dialog belongs to the whole script: one opened by a part that renews itself dies with the next renewal. So it
    stays asked for until it is answered, whatever interrupts the script that shows it.
    """
    if _MADE in st.session_state:
        # Only a run of the whole script may change the address: what a dialog writes there can get lost.
        st.query_params["run"] = st.session_state.pop(_MADE)
        st.rerun()
    what, about = st.session_state.get(_ASKED, (None, None))
    if about == run_id:
        _DIALOGS[what](run_id)


def _answered() -> None:
    st.session_state.pop(_ASKED, None)


def _dismissed(what: str) -> Callable[[], None]:
    """When a dialog is closed. The word of it may come late, when another one is asked for already: that one stays."""

    def closed() -> None:
        if st.session_state.get(_ASKED, (None, None))[0] == what:
            _answered()

    return closed


def _act(deed: Deed, done: str) -> None:
    session.act(deed, done)
    _answered()
    st.rerun()


def _read(run_id: str) -> tuple[RunView, Steps]:
    async def read(platform: Platform, who: Viewer) -> tuple[RunView, Steps]:
        view = await platform.runs.get(who.ctx, run_id)
        steps = await platform.runs.steps(who.ctx, run_id)
        return view, sorted({step.step: step.name for step in steps}.items())

    return session.ask(read)


def _named(steps: Steps) -> Callable[[int], str]:
    names = dict(steps)
    return lambda number: f"{number} {names.get(number, 'what comes next')}"


@st.dialog("Cancel this run?", on_dismiss=_dismissed("cancel"))
def _cancel(run_id: str) -> None:
    st.write(
        "It stops at its next step. What its finished steps did is undone where the workflow says how, and stays "
        "otherwise; what they cost stays. You can retry it later."
    )
    if st.button("Cancel the run", type="primary", key="confirm_cancel"):
        _act(lambda platform, who: platform.control.cancel(who.ctx, run_id), "The run is being cancelled.")


@st.dialog("Pause this run?", on_dismiss=_dismissed("pause"))
def _pause(run_id: str) -> None:
    st.write(
        "It stands still until somebody resumes it: at once, or, while it executes, before its next step. Reviews can "
        "be decided and timers run out meanwhile, and the limit of its duration counts on."
    )
    if st.button("Pause the run", type="primary", key="confirm_pause"):
        _act(lambda platform, who: platform.control.pause(who.ctx, run_id), "The run is paused.")


@st.dialog("Resume this run?", on_dismiss=_dismissed("resume"))
def _resume(run_id: str) -> None:
    st.write("It goes on from the head of its lane, unless it still waits for something.")
    if st.button("Resume the run", type="primary", key="confirm_resume"):
        _act(lambda platform, who: platform.control.resume(who.ctx, run_id), "The run is resumed.")


@st.dialog("Retry this run?", on_dismiss=_dismissed("retry"))
def _retry(run_id: str) -> None:
    _, steps = _read(run_id)
    st.write("It is queued again at the head of its lane. Finished steps are not repeated, nor paid again.")
    name = _named(steps)
    start = st.selectbox(
        "Do again from",
        [None, *(number for number, _ in steps)],
        format_func=lambda number: "where it stopped" if number is None else name(number),
        key="retry_from",
        help="This step and all after it are done and paid anew, and people are asked again.",
    )
    if st.button("Retry the run", type="primary", key="confirm_retry"):
        _act(
            lambda platform, who: platform.control.retry(who.ctx, run_id, from_step=start),
            "The run is queued again.",
        )


@st.dialog("Replay this dead run?", on_dismiss=_dismissed("replay"))
def _replay(run_id: str) -> None:
    st.write(
        "It took too many workers with it, or broke too often, so nobody executes it any more. It is queued again at "
        "the head of its lane, goes on after its last finished step, and may do the same again: look at its steps "
        "first."
    )
    if st.button("Replay the run", type="primary", key="confirm_replay"):

        async def again(platform: Platform, who: Viewer) -> None:
            who.ctx.require(Scope.PLATFORM_OPERATE)
            run = (await history(platform.db, who.ctx, run_id, platform.clock.now())).run
            await platform.control.retry(await acting(platform, who, run.tenant_id), run_id)

        _act(again, "The run is queued again.")


@st.dialog("Fork this run?", width="medium", on_dismiss=_dismissed("fork"))
def _fork(run_id: str) -> None:
    view, steps = _read(run_id)
    last = max((number for number, _ in steps), default=0)
    st.write("A new run of the same version is given the steps before this one, at no cost, and goes on from there.")
    start = st.selectbox("Go on from", list(range(1, last + 2)), format_func=_named(steps), key="fork_from")
    text = st.text_area(
        "Input",
        json.dumps(view.input, indent=2, ensure_ascii=False),
        height=220,
        key="fork_input",
        help="A changed input changes nothing in the steps that are given: they answer as they did for the old one. "
        "What people decided is not given with it: go on from that step, or one before.",
    )
    if st.button("Fork the run", type="primary", key="confirm_fork"):
        try:
            document = json.loads(text)
        except ValueError as error:
            st.error(f"This is not JSON: {error}", icon=":material/error:")
            return
        made: list[RunView] = []

        async def fork(platform: Platform, who: Viewer) -> None:
            new, _ = await platform.control.fork(
                who.ctx, run_id, from_step=start, document=document, source="dashboard"
            )
            made.append(new)

        if session.attempt(fork, "The fork is queued."):
            _answered()
            st.session_state[_MADE] = made[0].run_id
            st.rerun()


async def acting(platform: Platform, who: Viewer, tenant_id: str) -> TenantContext:
    """Who acts on a run of a tenant: the viewer, or an operator in the tenant's name; its audit says who it was."""
    if not who.operator:
        return who.ctx
    return await platform.tenants.context_for(
        TenantId(tenant_id), actor_kind=who.ctx.actor_kind, actor_id=who.ctx.actor_id, scopes=_OPERATING
    )


@st.dialog("Give this run another budget?", on_dismiss=_dismissed("budget"))
def _budget(run_id: str) -> None:
    async def read(platform: Platform, who: Viewer) -> RunLine:
        return (await history(platform.db, who.ctx, run_id, platform.clock.now())).run

    run = session.ask(read)
    told = (
        f"It may spend {format_usd(run.budget_microusd)} in all, its children included, and has spent "
        f"{format_usd(run.cost_microusd)}. With another budget, what it asked people about money is withdrawn: it goes "
        "on when its next step is covered, and asks anew when it is not."
    )
    st.write(literal(told))  # two dollars would set what is between as a formula
    amount = st.number_input(
        "Budget in USD", value=run.budget_microusd / MICRO, step=0.01, format="%.4f", key="budget_to"
    )
    if st.button("Set the budget", type="primary", key="confirm_budget"):
        if round(amount * MICRO) == run.budget_microusd:
            st.info("This is its budget already: nothing was changed.", icon=":material/info:")
            return

        async def give(platform: Platform, who: Viewer) -> None:
            ctx = await acting(platform, who, run.tenant_id)
            await platform.control.budget(ctx, run_id, round(amount * MICRO))

        if session.attempt(give, "The budget is set."):
            _answered()
            st.rerun()


_DIALOGS: dict[str | None, Callable[[str], None]] = {
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "replay": _replay,
    "fork": _fork,
    "budget": _budget,
}
