"""Metrics of model calls. Labels are bounded: tenants, purposes and endpoints are few and ours."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80)


class ModelMetrics:
    """One set per registry, which is one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        call = ["tenant", "purpose", "model", "endpoint"]
        self.calls = Counter("bailiwick_model_calls_total", "Calls by outcome.", [*call, "outcome"], registry=registry)
        self.tokens = Counter("bailiwick_model_tokens_total", "Tokens used.", [*call, "direction"], registry=registry)
        self.cost = Counter("bailiwick_model_cost_microusd_total", "Money spent.", call, registry=registry)
        self.seconds = Histogram(
            "bailiwick_model_call_seconds",
            "Time to the end of the answer.",
            ["model", "endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.cache = Counter("bailiwick_model_cache_total", "Cache look-ups.", ["tenant", "result"], registry=registry)
        self.open_breakers = Gauge(
            "bailiwick_model_breaker_open",
            "1 while an endpoint is left alone for a while.",
            ["endpoint"],
            registry=registry,
        )
