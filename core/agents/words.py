"""Counts and causes in plain words, for the agent's tools and for screens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.runs.model import BatchProgress, Cause
from core.tenancy import Policy

_QUEUED = {
    Cause.CAP: "your cap of {cap} at a time is in use",
    Cause.SHARE: "they start as soon as a slot is free",
    Cause.NO_WORKER: "no worker is running; please tell your operator",
    Cause.NO_CODE: "no worker has the code of their version; please tell your operator",
    Cause.PAUSED: "your organisation is paused; please ask your operator",
}
_WAITING = {
    Cause.PAUSED: "{count:,} {wait} until somebody resumes {them}",
    Cause.REVIEW: "{count:,} {wait} for a reviewer's decision",
    Cause.RATE: "{count:,} {wait} for an external service's rate limit to free up",
    Cause.ENDPOINT: "{count:,} {wait} for an external service that does not answer",
    Cause.BUDGET: "{count:,} {wait} for budget; your operator can raise it",
    Cause.TIMER: "{count:,} {wait} until a set time",
    Cause.EVENT: "{count:,} {wait} for an event",
    Cause.CHILDREN: "{count:,} {wait} for the runs they started",
}
_STATE_OF_CAUSE = {
    Cause.CAP: "your cap is in use",
    Cause.SHARE: "next free slot",
    Cause.NO_WORKER: "no worker is running",
    Cause.NO_CODE: "no worker has the code of its version",
    Cause.PAUSED: "paused",
    Cause.REVIEW: "a reviewer's decision",
    Cause.RATE: "rate limit",
    Cause.ENDPOINT: "a service that does not answer",
    Cause.BUDGET: "budget",
    Cause.TIMER: "a set time",
    Cause.EVENT: "an event",
    Cause.CHILDREN: "runs it started",
}


def waits_in_words(progress: BatchProgress, policy: Policy) -> list[str]:
    """One sentence for each cause for which runs of a batch do not execute right now."""
    sentences = [
        f"{count:,} queued: {_queued_in_words(Cause(cause), policy)}"
        for cause, count in sorted(progress.queued_by_cause.items())
        if count
    ]
    for cause, count in sorted(progress.waiting_by_cause.items()):
        if count:
            words = _WAITING.get(Cause(cause), "{count:,} {wait}: " + _STATE_OF_CAUSE[Cause(cause)])
            one = count == 1
            sentences.append(words.format(count=count, wait="waits" if one else "wait", them="it" if one else "them"))
    return sentences


def _queued_in_words(cause: Cause, policy: Policy) -> str:
    return _QUEUED.get(cause, _STATE_OF_CAUSE[cause]).format(cap=policy.concurrency_cap)


def cause_in_words(cause: str | None) -> str:
    """A cause beside a single run; empty for none."""
    return _STATE_OF_CAUSE[Cause(cause)] if cause else ""


def counts_of(progress: BatchProgress) -> dict[str, int | dict[str, int]]:
    """A batch as counts that add up to its total: finished runs by outcome where they have one."""
    outcomes = {name: count for name, count in progress.by_outcome.items() if count}
    plain = progress.succeeded - sum(outcomes.values())
    counts: dict[str, int | dict[str, int]] = {"total": progress.total, "queued": progress.queued}
    counts["running"] = progress.running
    if progress.waiting_by_cause:
        counts["waiting"] = dict(progress.waiting_by_cause)
    counts |= outcomes
    if plain > 0:
        counts["succeeded"] = plain
    counts |= {"failed": progress.failed, "cancelled": progress.cancelled}
    if progress.dead:
        counts["dead"] = progress.dead
    return counts


def merged(batch_id: str, parts: list[BatchProgress]) -> BatchProgress:
    """Several batches as one."""
    return BatchProgress(
        batch_id=batch_id,
        total=sum(part.total for part in parts),
        queued=sum(part.queued for part in parts),
        running=sum(part.running for part in parts),
        waiting_by_cause=_sum(part.waiting_by_cause for part in parts),
        succeeded=sum(part.succeeded for part in parts),
        failed=sum(part.failed for part in parts),
        cancelled=sum(part.cancelled for part in parts),
        by_outcome=_sum(part.by_outcome for part in parts),
        cost_microusd=sum(part.cost_microusd for part in parts),
        queued_by_cause=_sum(part.queued_by_cause for part in parts),
        dead=sum(part.dead for part in parts),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortest(mapping: Mapping[str, object]) -> dict[str, object]:
    """Without what is empty: fewer words for the model to read."""
    return {name: value for name, value in mapping.items() if value not in (None, "", [], {}, ())}
