"""Looks at the addresses that pollers watch: politely, and never at a private one.

A look is a conditional GET (ETag, Last-Modified) within 20 s and 2 MB. 304 means unchanged; 200 is compared
with what was seen before; anything else is a failure, after which the looks become rarer (doubling, with full
jitter, at most 6 h, never before Retry-After). A tenant whose policy has the rate limit ``polls`` looks that
often at most. See ``core.http`` for what is refused, ``core.schedules.feed`` for what counts as new.
"""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta

import httpx

from core.clock import Clock
from core.errors import BailiwickError, Unavailable
from core.http import Fetched, fetch, retry_after_s
from core.redis.limits import Limits
from core.schedules.feed import Response, compare
from core.schedules.model import PollerView
from core.schedules.pollers import PollerService
from core.tenancy import TenantContext

RATE_LIMIT = "polls"
MAX_BYTES = 2_000_000
DEADLINE_S = 20.0
_ACCEPT = "application/feed+json, application/atom+xml, application/rss+xml, application/json, text/*;q=0.8, */*;q=0.5"


class Lookout:
    """Looks for pollers and tells ``PollerService`` what it saw."""

    def __init__(self, pollers: PollerService, limits: Limits, client: httpx.AsyncClient, clock: Clock) -> None:
        self._pollers = pollers
        self._limits = limits
        self._client = client
        self._clock = clock
        self._random = random.SystemRandom()

    async def look(self, ctx: TenantContext, poller_id: str) -> datetime | None:
        """Look if it is time; when to look again, None: the poller is paused or gone."""
        view = await self._pollers.armed(ctx, poller_id)
        if view is None or view.next_at is None:
            return None
        now = self._clock.now()
        if view.next_at > now:
            return view.next_at
        if (wait_s := await self._wait_s(ctx, now)) > 0:
            return await self._pollers.postpone(ctx, poller_id, now + timedelta(seconds=wait_s))
        try:
            response = await self._get(view, now)
        except BailiwickError as error:
            return await self._pollers.failed(ctx, view, error, self._random.random())
        if response is None:
            return await self._pollers.unchanged(ctx, view)
        comparison = await asyncio.to_thread(compare, view.seen, response)
        return await self._pollers.seen(ctx, view, comparison)

    async def _wait_s(self, ctx: TenantContext, now: datetime) -> float:
        rate = ctx.policy.rate_limits.get(RATE_LIMIT)
        return 0.0 if rate is None else await self._limits.take(ctx, RATE_LIMIT, rate, now)

    async def _get(self, view: PollerView, now: datetime) -> Response | None:
        """The content; None: not modified."""
        headers = {"Accept": _ACCEPT}
        if view.seen.etag is not None:
            headers["If-None-Match"] = view.seen.etag
        if view.seen.last_modified is not None:
            headers["If-Modified-Since"] = view.seen.last_modified
        answer = await fetch(self._client, view.url, headers=headers, max_bytes=MAX_BYTES, deadline_s=DEADLINE_S)
        if answer.status == httpx.codes.NOT_MODIFIED:
            return None
        if answer.status != httpx.codes.OK:
            raise Unavailable(f"The server answered {answer.status}.", retry_after_s=retry_after_s(answer.headers, now))
        return _response(view.url, answer)


def _response(url: str, answer: Fetched) -> Response:
    get = answer.headers.get
    return Response(url, answer.body, get("content-type", ""), get("etag"), get("last-modified"))
