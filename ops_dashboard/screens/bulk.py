"""One act on all runs that the filters of the list find: choose, look, confirm, watch."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.errors import BailiwickError
from core.runs.acts import Act
from core.runs.bulk import Bulk, Choice
from ops_dashboard import session
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, count, literal, moment, plain

_ASKED = "bulk_asked"
_SHOWN = "bulk_shown"
_WORDS = {
    Act.RETRY: (
        "Retry",
        ":material/replay:",
        "They are queued again; finished steps are not repeated, nor paid again.",
    ),
    Act.PAUSE: ("Pause", ":material/pause:", "They stand still until somebody resumes them."),
    Act.RESUME: ("Resume", ":material/play_arrow:", "They go on from the head of their lanes."),
    Act.CANCEL: ("Cancel", ":material/cancel:", "They stop at their next step, and can be retried later."),
}


def menu(choice: Choice) -> None:
    """The acts, on everything that ``choice`` finds."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("All of these:", width="content")
        for act, (label, icon, _) in _WORDS.items():
            if st.button(label, icon=icon, key=f"bulk_{act}", type="tertiary"):
                _preview(act, choice)


def ask() -> None:
    """Show what was chosen, until it is confirmed or dismissed."""
    if _ASKED in st.session_state:
        _confirm(st.session_state[_ASKED])


def _preview(act: Act, choice: Choice) -> None:
    try:
        bulk = session.ask(lambda platform, who: platform.bulk.preview(who.ctx, act, choice))
    except BailiwickError as error:
        session.notify(error.message, ok=False)
    else:
        st.session_state[_ASKED] = bulk.bulk_id
    st.rerun()


def _answered() -> None:
    st.session_state.pop(_ASKED, None)


def _read(bulk_id: str) -> Bulk:
    return session.ask(lambda platform, who: platform.bulk.get(who.ctx, bulk_id))


def _runs(number: int) -> str:
    return f"{count(number)} {'run' if number == 1 else 'runs'}"


@st.dialog("Act on many runs?", width="large", on_dismiss=_answered)
def _confirm(bulk_id: str) -> None:
    bulk, who = _read(bulk_id), session.viewer()
    label, _, meaning = _WORDS[bulk.act]
    if not bulk.runs:
        st.info(f"There is nothing to {bulk.act} among these runs.", icon=":material/filter_alt_off:")
        if "batch_id" in bulk.choice:
            st.caption("What is searched for is taken as a batch here. One run has these acts on its own page.")
        return
    parts = ", ".join(f"{count(runs)} {state}" for state, runs in bulk.by_state.items())
    st.subheader(f"{label} {_runs(bulk.runs)}", anchor=False)
    st.write(f"{parts}. {meaning} A run whose state changes before its turn is left alone.")
    st.dataframe(_sample(bulk, who), hide_index=True)
    if bulk.runs > len(bulk.sample):
        st.caption(f"The newest {len(bulk.sample)} of them.")
    if st.button(f"{label} {_runs(bulk.runs)}", type="primary", key="confirm_bulk"):
        if session.act(lambda platform, who: platform.bulk.apply(who.ctx, bulk_id, for_s=0.2), "It has begun."):
            st.session_state[_SHOWN] = bulk_id
        _answered()
        st.rerun()


def _sample(bulk: Bulk, who: Viewer) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "State": [run.state for run in bulk.sample],
            "Workflow": [f"{run.workflow} v{run.version}" for run in bulk.sample],
            "Outcome": [plain(run.outcome or run.error_code or NONE) for run in bulk.sample],
            "Submitted": [moment(run.submitted_at, who.timezone) for run in bulk.sample],
            "Run": [run.run_id for run in bulk.sample],
        }
    )


@session.live("1s")
def progress() -> None:
    """How far the bulk is that was confirmed last."""
    bulk_id = st.session_state.get(_SHOWN)
    if bulk_id is None:
        return
    bulk = _read(bulk_id)
    ended = bulk.done + bulk.skipped
    words = f"{_WORDS[bulk.act][0]}: {count(ended)} of {count(bulk.runs)} runs"
    words += f", {count(bulk.skipped)} left alone" if bulk.skipped else ""
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.progress(ended / bulk.runs, text=words)
        if st.button("Close", icon=":material/close:", type="tertiary", key="close_bulk"):
            del st.session_state[_SHOWN]
            st.rerun(scope="fragment")
    for reason, runs in list(bulk.reasons.items())[:5]:
        st.caption(literal(f"{count(runs)}: {reason}"))
