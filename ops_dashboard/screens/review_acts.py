"""What a reviewer does with a case: fill in its form, claim it, give it to a colleague, decide many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import streamlit as st

from core.bootstrap import Platform
from core.errors import BailiwickError
from core.reviews.form import Field, fields
from core.reviews.model import MAX_COMMENT, BulkResult, ReviewView
from core.reviews.service import MAX_BULK
from ops_dashboard import session
from ops_dashboard.screens.forms import whole_input
from ops_dashboard.session import Viewer
from ops_dashboard.words import count, literal

_ROUND = "many_round"


def inputs(review: ReviewView) -> dict[str, Any] | None:
    """An input for each field of the review's form, and what is in them now; None: it has no form."""
    if review.form is None:
        return None
    return {field.name: _input(field, f"answer_{review.review_id}_{field.name}") for field in fields(review.form)}


def answered(answer: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was filled in; what was left empty is left out, so that its default or its fault is found."""
    return None if answer is None else {name: value for name, value in answer.items() if value not in (None, "")}


def _input(field: Field, key: str) -> Any:
    label, tip = literal(f"{field.title}{' *' if field.required else ''}"), literal(field.description or "") or None
    match field.kind:
        case "choice":
            chosen = field.choices.index(field.default) if field.default in field.choices else None
            return st.selectbox(label, field.choices, index=chosen, key=key, help=tip)
        case "boolean":
            return st.checkbox(label, value=bool(field.default), key=key, help=tip)
        case "date":
            given = date.fromisoformat(field.default) if isinstance(field.default, str) else None
            picked = st.date_input(label, given, key=key, help=tip)
            return picked.isoformat() if isinstance(picked, date) else None
        case "text":
            return st.text_input(label, field.default or "", max_chars=field.longest, key=key, help=tip)
        case _:
            return _number(field, label, key, tip)


def _number(field: Field, label: str, key: str, tip: str | None) -> int | float | None:
    given = None if field.default is None else float(field.default)
    # Bounds are said when the form is sent: an input that silently moves a number to its bound is worse.
    if field.kind == "integer":
        return whole_input(st, label, given, key, help=tip)
    return st.number_input(label, value=given, step=0.01, key=key, help=tip)


def hold(review: ReviewView) -> None:
    """Claim, give back or give away, on one line."""
    who = session.viewer()
    mine = any(claim.by == who.ctx.actor for claim in review.claims)
    with st.container(horizontal=True):
        if mine:
            if st.button("Release", icon=":material/lock_open:", help="Others may take it then."):
                _done(lambda platform, me: platform.desk.release(me.ctx, review.review_id), "Released.")
        elif st.button("Claim", icon=":material/lock:", help="Colleagues see for half an hour that you work on it."):
            _done(lambda platform, me: platform.desk.claim(me.ctx, review.review_id), "Yours for half an hour.")
        if not who.pool_reviewer:
            with st.popover("Delegate", icon=":material/forward_to_inbox:"):
                _delegate(review, who)


def _delegate(review: ReviewView, who: Viewer) -> None:
    names = {
        user_id: name
        for user_id, name in session.ask(lambda platform, me: platform.desk.deciders(me.ctx)).items()
        if user_id != who.identity.user_id
    }
    colleague = st.selectbox(
        "To", list(names), index=None, format_func=names.__getitem__, key=f"colleague_{review.review_id}"
    )
    given = st.button("Give it to them", key=f"delegate_{review.review_id}", disabled=colleague is None)
    if given and colleague is not None:
        _done(
            lambda platform, me: platform.desk.delegate(me.ctx, review.review_id, colleague),
            f"{names[colleague]} has it until it is due.",
        )


def _done(deed: Any, said: str) -> None:
    session.act(deed, said)
    st.rerun()


async def _mine(platform: Platform, who: Viewer) -> Sequence[ReviewView]:
    return await platform.desk.mine(who.ctx, MAX_BULK)


def many() -> None:
    """One verdict for several cases that offer the same choices and have no form."""
    plain = [review for review in session.ask(_mine) if review.form is None]
    alike = {tuple(review.choices) for review in plain}
    if not plain:
        st.success("Nothing waits for a decision that could be made for several at once.", icon=":material/task_alt:")
        return
    offered = st.selectbox("Which decision", sorted(alike), format_func=" or ".join, key="many_choices")
    titles = {str(review.review_id): review.title for review in plain if tuple(review.choices) == offered}
    number = st.session_state.get(_ROUND, 0)  # the fields are new ones after each decision, and only then
    with st.form(f"many_{number}", border=False):
        chosen = st.multiselect("Cases", list(titles), format_func=titles.__getitem__, key=f"many_cases_{number}")
        verdict = st.segmented_control(
            "Your decision on all of them", offered, format_func=literal, key=f"many_verdict_{number}"
        )
        comment = st.text_area("Why, for all of them", key=f"many_comment_{number}", max_chars=MAX_COMMENT, height=90)
        if not st.form_submit_button("Decide all", type="primary", icon=":material/gavel:"):
            return
    if verdict is None or not chosen:
        st.error("Choose the cases and a decision first.")
        return
    try:
        results = session.ask(lambda platform, who: platform.desk.decide_many(who.ctx, chosen, verdict, comment))
    except BailiwickError as error:
        session.show_refusal(error)
        return
    _tell(results, titles)
    st.session_state[_ROUND] = number + 1
    st.rerun()


def _tell(results: Sequence[BulkResult], titles: dict[str, str]) -> None:
    counted = Counter(result.outcome for result in results if not result.message)
    for outcome, cases in counted.items():
        session.notify(f"{count(cases)} {outcome}.")
    for result in results:
        if result.message:
            session.notify(f"{titles[result.review_id]}: {result.message}", ok=False)
