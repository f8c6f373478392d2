"""Reviews: what people must decide, their own claims first, then the most urgent; the evidence; the decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd
import streamlit as st

from core.bootstrap import Platform
from core.errors import NotFound
from core.ids import ReviewId
from core.reviews.model import MAX_COMMENT, ReviewView
from ops_dashboard import data, session
from ops_dashboard.screens import review_acts
from ops_dashboard.screens.tables import height_of
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, count, facts, literal, moment, plain, relative

_LIMIT = 200
_ROUND = "reviews_round"
_SHOWN = "reviews_shown"
_CLICKED = "reviews_clicked"


def show() -> None:
    """The queue beside the review that is being looked at; below, what was decided."""
    if _CLICKED in st.session_state:
        # Only a run of the whole script may change the address: what a fragment writes there can get lost.
        st.query_params["review"] = st.session_state.pop(_CLICKED)
    st.title("Reviews", anchor=False)
    waiting, together, decided = st.tabs(["To decide", "Many at once", "Decided"])
    with waiting:
        left, right = st.columns([2, 3], gap="medium")
        with left:
            _queue()
        with right:
            _chosen()
    with together:
        review_acts.many()
    with decided:
        _history()


async def _open(platform: Platform, who: Viewer) -> tuple[Sequence[ReviewView], set[ReviewId], datetime]:
    """All that is open, the viewer's next first and what colleagues have last; what is for the viewer; the time."""
    mine = await platform.desk.mine(who.ctx, _LIMIT)
    ids = {review.review_id for review in mine}
    rest = [review for review in await platform.desk.open(who.ctx, _LIMIT) if review.review_id not in ids]
    return (mine + rest)[:_LIMIT], ids, platform.clock.now()


@session.live()
def _queue() -> None:
    if _CLICKED in st.session_state:
        st.rerun()  # the other half of the screen shows what was clicked
    reviews, mine, now = session.ask(_open)
    overdue = sum(review.due_at < now for review in reviews)
    with st.container(horizontal=True):
        more = "+" if len(reviews) == _LIMIT else ""
        st.metric("Open", count(len(reviews)) + more, border=True, width=130)
        st.metric("Overdue", count(overdue) + (more if overdue == len(reviews) else ""), border=True, width=130)
    if not reviews:
        st.success("Nothing waits for a decision.", icon=":material/task_alt:")
        return
    st.session_state[_SHOWN] = [review.review_id for review in reviews]
    st.dataframe(
        pd.DataFrame(
            {
                "Review": [_title(review) for review in reviews],
                "Due": [_due(review, now, review.review_id in mine) for review in reviews],
            }
        ),
        hide_index=True,
        height=height_of(len(reviews), 14),
        key=_table_key(),
        on_select=_select,
        selection_mode="single-cell",
        column_config={"Due": st.column_config.TextColumn(width=200)},
    )
    shown = f"The first {_LIMIT}: w" if more else "W"
    st.caption(f"{shown}hat is yours first, then the most urgent. Click one to look at its evidence.")


def _title(review: ReviewView) -> str:
    return review.title if review.tenant_name is None else f"{review.tenant_name}: {review.title}"


def _table_key() -> str:
    # A new key after each decision: nothing is selected any more in a table without what was selected.
    return f"reviews_table_{st.session_state.get(_ROUND, 0)}"


def _due(review: ReviewView, now: datetime, mine: bool) -> str:
    taken = "" if mine else "taken, "
    return f"{taken}{'overdue, ' if review.due_at < now else ''}{relative(review.due_at, now)}"


def _select() -> None:
    cells = st.session_state[_table_key()].selection.cells
    if cells:
        st.session_state[_CLICKED] = st.session_state[_SHOWN][cells[0][0]]


async def _get(platform: Platform, who: Viewer, review_id: str | None) -> ReviewView | None:
    if review_id is not None:
        return await platform.desk.get(who.ctx, review_id)
    mine = await platform.desk.mine(who.ctx, 1)
    return mine[0] if mine else None


async def _names(platform: Platform, who: Viewer) -> dict[str, str]:
    return await data.people(platform.db, who.ctx)


def _standing(review: ReviewView, people: dict[str, str]) -> str:
    """Who works on it, who has voted, how far it has escalated: what a colleague must know."""
    words = [f"{_person(claim.by, people)} works on it" for claim in review.claims]
    if review.of > 1:
        words.append(f"{len(review.votes)} of {review.of} have voted, {review.needed} must agree")
        words += [f"{_person(vote.by, people)}: {vote.verdict}" for vote in review.votes]
    if review.level:
        words.append(f"escalated {'once' if review.level == 1 else f'{review.level} times'}")
    if review.role is not None:
        words.append(f"for the role {review.role}")
    return " · ".join(words)


def _person(actor: str | None, people: dict[str, str]) -> str:
    """A name; who belongs to another organisation, as with shared pools, has none here."""
    if actor is None:
        return NONE
    return people.get(actor) or ("somebody else" if actor.startswith("user:") else plain(actor.partition(":")[0]))


def _chosen() -> None:
    review_id = st.query_params.get("review")
    try:
        review = session.ask(lambda platform, who: _get(platform, who, review_id))
    except NotFound as error:
        st.warning(literal(error.message), icon=":material/search_off:")
        return
    if review is None:
        return
    who = session.viewer()
    people = session.ask(_names)
    with st.container(border=True):
        st.subheader(literal(review.title), anchor=False)
        st.caption(
            f"asked {moment(review.created_at, who.timezone)} · due {moment(review.due_at, who.timezone)} · "
            f"pool {literal(review.pool)} · run "
            + (f"`{review.run_id}`" if who.pool_reviewer else f"[{review.run_id}](/runs?run={review.run_id})")
        )
        if standing := _standing(review, people):
            st.caption(literal(standing))
        # A table of text: what people decide on is read as a whole, and no line of it is cut off.
        st.table(_written(facts(review.evidence)), border="horizontal", hide_index=True)
        if review.state == "open":
            review_acts.hold(review)
            _decision(review)
        else:
            by = f" by {_person(review.decided_by, people)}" if review.decided_by else ""
            verdict = f"{review.state.capitalize()}: **{literal(review.verdict or NONE)}**{literal(by)}."
            st.info(f"{verdict} {literal(review.comment or '')}")
    if review_id is not None and st.button("The most urgent one", icon=":material/skip_next:"):
        _to_the_most_urgent()
        st.rerun()


def _written(evidence: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame([(literal(name), literal(value)) for name, value in evidence], columns=["What", "Value"])


def _decision(review: ReviewView) -> None:
    with st.form(f"decide_{review.review_id}", border=False):
        verdict = st.segmented_control(
            "Your decision", review.choices, format_func=literal, key=f"verdict_{review.review_id}"
        )
        answer = review_acts.inputs(review)
        comment = st.text_area(
            "Comment",
            key=f"comment_{review.review_id}",
            max_chars=MAX_COMMENT,
            placeholder="Why. It is kept with the run and in the audit.",
            height=90,
        )
        if not st.form_submit_button("Decide", type="primary", icon=":material/gavel:"):
            return
    if verdict is None:
        st.error("Choose a decision first.")
        return
    said = f"Decided: {verdict}. The run goes on." if review.of == 1 else f"You voted: {verdict}."
    if session.attempt(
        lambda platform, who: platform.desk.decide(
            who.ctx, review.review_id, verdict, comment, review_acts.answered(answer)
        ),
        said,
    ):
        _to_the_most_urgent()
        st.rerun()


def _to_the_most_urgent() -> None:
    st.query_params.pop("review", None)
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1


async def _recent(platform: Platform, who: Viewer) -> tuple[Sequence[ReviewView], dict[str, str]]:
    return await platform.desk.recent(who.ctx, _LIMIT), await _names(platform, who)


@session.live("5s")
def _history() -> None:
    who = session.viewer()
    reviews, people = session.ask(_recent)
    closed = [review for review in reviews if review.state != "open"]
    if not closed:
        st.info("Nothing was decided yet.", icon=":material/history:")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "Decided": [moment(review.decided_at, who.timezone) for review in closed],
                "In time": [
                    NONE if review.decided_at is None else "yes" if review.decided_at <= review.due_at else "late"
                    for review in closed
                ],
                "Review": [_title(review) for review in closed],
                "Verdict": [review.verdict or review.state for review in closed],
                "By": [_person(review.decided_by, people) for review in closed],
                "Comment": [review.comment or NONE for review in closed],
                "Run": [review.run_id for review in closed],
            }
        ),
        hide_index=True,
    )
