"""External services as steps call them: one pool of connections each, a breaker, and a bulkhead per tenant.

    call ──breaker open──► EndpointDown, nothing was sent: the run waits for free (cause ``endpoint``)
         ──no place free for 2 s──► EndpointDown, too: the tenant has as many calls open as it may
         ──► sent ──no connection, no answer, 5xx──► told to the breaker as a failure, and to the step as it is
                  ──anything else──► an answer, be it a refusal

What fails one tenant only (its account there, what it sends) opens that tenant's breaker; see ``core.breaker``. A
request that is cut off after it got no answer for ``SLOW_S``, because the time of its step was over, has failed; one
that was cut off earlier says nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import cast

import httpx
from prometheus_client import CollectorRegistry, Gauge

from core.breaker import Bulkhead
from core.errors import EndpointDown
from core.ids import TenantId
from core.settings import Settings
from core.shared_breaker import Reports, SharedBreaker
from core.workflows.step import Blobs, Rooms

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0
CALLS_PER_TENANT = 16
"""Calls of one tenant to one service that a process has open at a time."""

SLOW_S = 5.0
_PLACE_WAIT_S, _LOOK_AGAIN_S = 2.0, 1.0
_NOT_TOLD = (httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Service:
    """One service, as all tenants of a process reach it.

    ``now_s``: any steadily growing number of seconds. ``reports``: by which processes tell each other that it does not
    answer; None: each learns by itself.
    """

    def __init__(
        self,
        name: str,
        transport: httpx.AsyncBaseTransport,
        now_s: Callable[[], float] = time.monotonic,
        watched: Callable[[int, bool], None] = lambda tenants, everybody: None,  # noqa: ARG005
        reports: Reports | None = None,
    ) -> None:
        self.name = name
        self.transport = transport
        self.bulkhead = Bulkhead(CALLS_PER_TENANT)
        self.now_s = now_s
        self._breaker = SharedBreaker(f"service {name}", reports, now_s)
        self._watched = watched

    def opens_in_s(self, tenant: str) -> float:
        """Seconds until the tenant may call it again; 0: now."""
        return self._breaker.opens_in_s(tenant)

    async def admit(self, tenant: str) -> None:
        """Raises ``EndpointDown`` unless the tenant may call it now."""
        admitted = await self._breaker.admit(tenant)
        self._watched(*self._breaker.open_for())  # others may have found something out
        if not admitted:
            after_s = self.opens_in_s(tenant) or _LOOK_AGAIN_S
            raise EndpointDown(
                f"The service {self.name} does not answer. It is tried again soon.",
                retry_after_s=after_s,
                service=self.name,
            )

    def answered(self, tenant: str) -> None:
        """It answered."""
        self._breaker.answered(tenant)
        self._watched(*self._breaker.open_for())

    def failed(self, tenant: str) -> None:
        """It did not."""
        self._breaker.failed(tenant)
        self._watched(*self._breaker.open_for())

    def abandoned(self, tenant: str) -> None:
        """The caller gave up."""
        self._breaker.abandoned(tenant)

    async def close(self) -> None:
        """Tell other processes what there is to tell, then close every connection."""
        await self._breaker.settled()
        await self.transport.aclose()


class _Call:
    """A call that is under way. It ends once, and gives its place back."""

    def __init__(self, service: Service, tenant: str) -> None:
        self._service = service
        self._tenant = tenant
        self._began_s = service.now_s()
        self._open = True

    def end(self, problem: BaseException | None, status: int = 200) -> None:
        """It was answered, or this went wrong."""
        if not self._open:
            return
        self._open = False
        self._service.bulkhead.give_back(self._tenant)
        if problem is None:
            fault = status >= 500
        elif isinstance(problem, httpx.TransportError):
            fault = not isinstance(problem, _NOT_TOLD)
        else:
            fault = self._service.now_s() - self._began_s >= SLOW_S
        if fault:
            self._service.failed(self._tenant)
        elif problem is None:
            self._service.answered(self._tenant)
        else:
            self._service.abandoned(self._tenant)


class Guard(httpx.AsyncBaseTransport):
    """One tenant's way to one service; the module says what may happen on it. Needs no closing."""

    def __init__(self, service: Service, tenant: TenantId) -> None:
        self._service = service
        self._tenant = tenant

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        service, tenant = self._service, self._tenant
        try:
            await service.bulkhead.take(tenant, _PLACE_WAIT_S)
        except TimeoutError:
            raise EndpointDown(
                f"{CALLS_PER_TENANT} calls to {service.name} are open, and no more are made at a time.",
                retry_after_s=_LOOK_AGAIN_S,
                service=service.name,
            ) from None
        try:
            await service.admit(tenant)
        except BaseException:
            service.bulkhead.give_back(tenant)
            raise
        call = _Call(service, tenant)
        try:
            response = await service.transport.handle_async_request(request)
        except BaseException as problem:
            call.end(problem)
            raise
        if response.is_closed:
            call.end(None, response.status_code)
            return response
        response.stream = _Body(cast("httpx.AsyncByteStream", response.stream), call, response.status_code)
        return response


class _Body(httpx.AsyncByteStream):
    """An answer on its way; the call is over with it."""

    def __init__(self, inner: httpx.AsyncByteStream, call: _Call, status: int) -> None:
        self._inner = inner
        self._call = call
        self._status = status

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                yield part
        except BaseException as problem:
            self._call.end(problem)
            raise

    async def aclose(self) -> None:
        """End it."""
        self._call.end(None, self._status)
        await self._inner.aclose()


class Services:
    """The external services of a process, and the platform's own rooms."""

    def __init__(
        self,
        settings: Settings,
        rooms: Rooms,
        blobs: Blobs,
        metrics: CollectorRegistry,
        reports: Reports | None = None,
    ) -> None:
        self.rooms = rooms
        self.blobs = blobs
        self._settings = settings
        self._services: dict[str, Service] = {}
        self._metrics = metrics
        self._reports = reports
        self._open = Gauge(
            "bailiwick_service_breaker_open",
            "Tenants that an external service does not answer (of=tenants); 1 while nobody calls it (of=all).",
            ["service", "of"],
            registry=metrics,
        )

    def client(self, service: str, tenant: TenantId) -> httpx.AsyncClient:
        """A tenant's client of a service. Addresses come from the configuration, never from a run; proxies of the
        environment are not used. Cookies are the client's, so no tenant sends another's. It needs no closing."""
        return httpx.AsyncClient(
            base_url=self._settings.service_url(service),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
            transport=Guard(self._service(service), tenant),
            trust_env=False,
        )

    def opens_in_s(self, service: str, tenant: TenantId) -> float:
        """Seconds until the tenant may call a service again; 0: now."""
        known = self._services.get(service)
        return 0.0 if known is None else known.opens_in_s(tenant)

    async def close(self) -> None:
        """Close every connection; another worker of this process may count from then on."""
        self._metrics.unregister(self._open)
        for service in self._services.values():
            await service.close()

    def _service(self, name: str) -> Service:
        if name not in self._services:

            def watched(tenants: int, everybody: bool) -> None:
                self._open.labels(name, "tenants").set(tenants)
                self._open.labels(name, "all").set(everybody)

            self._services[name] = Service(name, httpx.AsyncHTTPTransport(), watched=watched, reports=self._reports)
        return self._services[name]
