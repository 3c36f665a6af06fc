"""Figures for Prometheus: the engine's own, read when they are asked for, and those of requests."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..inference.engine import Engine, Finished

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# milliseconds, finely around 3: so much the server may add to a token (docs/serving.md)
DELAYS = tuple(ms / 1000 for ms in (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 6, 10, 25, 100, 1000))


class Metrics:
    """One registry a server, so that several in a process keep apart."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "griffin_http_requests",
            "Requests",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "griffin_http_seconds",
            "Time to the end",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first = Histogram(
            "griffin_first_token_seconds",
            "From submission to the first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.delay = Histogram(
            "griffin_token_delay_seconds",
            "From a streamed token being ready to its bytes being with the connection",
            buckets=DELAYS,
            registry=self.registry,
        )
        self.ends = Counter(
            "griffin_finished",
            "Requests served, by how they ended",
            ("reason",),
            registry=self.registry,
        )
        self.registry.register(_EngineFigures(engine))

    def finished(self, end: Finished) -> None:
        """Counts a request that the engine has served."""
        self.first.observe(end.first_seconds)
        self.ends.labels(end.reason).inc()

    def text(self) -> bytes:
        """All figures, in Prometheus's text format."""
        return generate_latest(self.registry)


class _EngineFigures(Collector):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        engine, cache = self.engine, self.engine.cache
        gauges = {
            "griffin_slots": ("Requests that can be served at once", engine.slots),
            "griffin_running": ("Requests being served", engine.running),
            "griffin_waiting": ("Requests in the queue", engine.waiting),
            "griffin_state_bytes": ("Bytes of all slots", engine.state_bytes),
            "griffin_prefix_cache_bytes": ("Bytes of the prefix cache", cache.nbytes),
            "griffin_prefix_cache_marks": ("States in the prefix cache", len(cache)),
        }
        counts = {
            "griffin_prompt_tokens": ("Tokens read", engine.counters.prompt_tokens),
            "griffin_generated_tokens": ("Tokens generated", engine.counters.generated_tokens),
            "griffin_refused": ("Requests refused, the queue being full", engine.counters.refused),
            "griffin_failed": ("Requests that failed", engine.counters.failed),
            "griffin_prefix_cache_hits": ("Prompts of which some was found", cache.hits),
            "griffin_prefix_cache_tokens": ("Tokens found", cache.found_tokens),
            "griffin_prefix_cache_evictions": ("States thrown away for room", cache.evictions),
        }
        for name, (about, value) in gauges.items():
            yield GaugeMetricFamily(name, about, value)
        for name, (about, value) in counts.items():
            yield CounterMetricFamily(name, about, value)
        misses = CounterMetricFamily(
            "griffin_prefix_cache_misses", "Prompts of which nothing was found", labels=("reason",)
        )
        for reason in ("short", "new", "unmarked", "evicted"):
            misses.add_metric((reason,), cache.misses[reason])
        yield misses
