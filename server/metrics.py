"""What the server measures of its requests, and what the engine tells of itself, as Prometheus reads it.

An engine request is one choice of an answer; each is measured on its own.
"""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from g4jax.engine.plan import SchedulerStats
from server.messages import Add, Update

FIRST_TOKEN_S = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.5, 5, 10, 20, 40, 80, 160)
INTER_TOKEN_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.4, 0.8, 2, 5)
WHOLE_REQUEST_S = (0.1, 0.2, 0.4, 0.8, 1.5, 2.5, 5, 10, 15, 20, 30, 60, 120, 240, 480, 960, 1920)

SUCCESSES = ("stop", "length")
FAILURES = ("abort", "error", "refused", "overloaded")
"""The client went away or somebody else ended it; it broke down; the engine cannot serve it; too many wait."""


class Metrics:
    """The series of one server.

    A time series with a label costs a look-up, so each is looked up here, once, and `RequestMeter` only adds.
    """

    def __init__(self, model: str, stats: Callable[[], SchedulerStats | None], cpu_seconds: Callable[[], float]):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(EngineCollector(model, stats, cpu_seconds))

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(f"g4jax:{name}", text, ["model_name"], buckets=buckets, registry=self.registry)
            return made.labels(model)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"g4jax:{name}", text, ["model_name"], registry=self.registry).labels(model)

        def counters(name: str, text: str, label: str, values: tuple[str, ...]) -> dict[str, Counter]:
            made = Counter(f"g4jax:{name}", text, ["model_name", label], registry=self.registry)
            return {value: made.labels(model, value) for value in values}

        self.first_token = histogram(
            "time_to_first_token_seconds", "From a tokenized prompt to its first token.", FIRST_TOKEN_S
        )
        self.inter_token = histogram(
            "inter_token_latency_seconds",
            "Time per further token: between two updates of a request, over the tokens of the second.",
            INTER_TOKEN_S,
        )
        self.whole = histogram(
            "e2e_request_latency_seconds", "From a tokenized prompt to the last token.", WHOLE_REQUEST_S
        )
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of the requests that were answered.")
        self.cached_tokens = counter("cached_tokens", "Those of them that the cache had.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.successes = counters(
            "request_success", "Requests answered, by what ended them.", "finished_reason", SUCCESSES
        )
        self.failures = counters("request_failure", "Requests not answered to the end.", "reason", FAILURES)


class RequestMeter:
    """Measures one engine request from its making to its end."""

    def __init__(self, metrics: Metrics, request: Add):
        self._metrics = metrics
        self._num_prompt = len(request.prompt_ids)
        self._began_s = self._last_s = time.perf_counter()
        self._has_token = False
        self._has_ended = False

    def update(self, update: Update) -> None:
        """Once per update, on the way of every token: keep it cheap."""
        if update.token_ids:
            now_s = time.perf_counter()
            if self._has_token:
                self._metrics.inter_token.observe((now_s - self._last_s) / len(update.token_ids))
            else:
                self._begin(update, now_s)
            self._metrics.generation_tokens.inc(len(update.token_ids))
            self._last_s = now_s
        if update.finish_reason is not None:
            self.end(update.finish_reason)

    def end(self, reason: str) -> None:
        """`reason` is one of SUCCESSES or FAILURES. Only the first end counts."""
        if self._has_ended:
            return
        self._has_ended = True
        if reason in self._metrics.successes:
            self._metrics.successes[reason].inc()
            self._metrics.whole.observe(self._last_s - self._began_s)
        else:
            self._metrics.failures[reason].inc()

    def _begin(self, update: Update, now_s: float) -> None:
        self._has_token = True
        self._metrics.first_token.observe(now_s - self._began_s)
        self._metrics.prompt_tokens.inc(self._num_prompt)
        self._metrics.cached_tokens.inc(update.cached_tokens)


class EngineCollector(Collector):
    """Shows the last statistics of the engine when it is asked; nothing until the engine has told any."""

    def __init__(self, model: str, stats: Callable[[], SchedulerStats | None], cpu_seconds: Callable[[], float]):
        self._model = model
        self._stats = stats
        self._cpu_seconds = cpu_seconds

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        if stats is None:
            return
        yield self._gauge("num_requests_running", "Requests that have a place in the batch.", stats.running)
        yield self._gauge("num_requests_waiting", "Requests that wait for a place or for room.", stats.waiting)
        usage = GaugeMetricFamily(
            "g4jax:kv_cache_usage_perc", "Share of the cache's pages in use, 0 to 1.", labels=["model_name", "pool"]
        )
        usage.add_metric([self._model, "sliding"], _share(stats.sliding_pages_used, stats.sliding_pages_total))
        usage.add_metric([self._model, "full"], _share(stats.full_pages_used, stats.full_pages_total))
        yield usage
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up in the cache.", stats.prompt_tokens)
        yield self._counter("prefix_cache_hits", "Those of them that it had.", stats.prefix_hit_tokens)
        yield self._counter("num_preemptions", "Requests that had to give up their pages.", stats.preemptions)
        yield self._counter("engine_cpu_seconds", "Processor time of the engine's process.", self._cpu_seconds())

    def _gauge(self, name: str, text: str, value: int) -> Metric:
        family = GaugeMetricFamily(f"g4jax:{name}", text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"g4jax:{name}", text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family


def _share(used: int, total: int) -> float:
    return used / total if total else 0.0
