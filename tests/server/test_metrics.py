"""GET /metrics: what is counted and timed, and what the engine tells."""

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from g4jax.testing.fake_engine import FakeEngine
from tests.server.conftest import MAX_MODEL_LEN, answers, ids, running, until

COUNT = "one two three four<turn|>"
ANSWERS = {"count": COUNT, "endless": "abc"}
STEP_S = 0.01


def engine(**values) -> FakeEngine:
    return FakeEngine(answers(ANSWERS), max_model_len=10**6, **{"tokens_per_step": 1, "step_s": STEP_S} | values)


def sample(served, name: str, **labels: str) -> float:
    """The value of one series; 0 where it is not shown."""
    text = httpx.get(f"{served.url}/metrics").text
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == f"g4jax:{name}" and labels.items() <= each.labels.items():
                assert each.labels["model_name"] == "nano"
                return each.value
    return 0.0


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_an_answer_is_counted_and_timed():
    with running(engine()) as served:
        for _ in range(2):
            answer = served.client.chat.completions.create(model="nano", messages=user("count"))
        num_tokens = len(ids(COUNT))
        assert sample(served, "request_success_total", finished_reason="stop") == 2
        assert sample(served, "generation_tokens_total") == 2 * num_tokens
        assert sample(served, "prompt_tokens_total") == 2 * answer.usage.prompt_tokens
        assert sample(served, "cached_tokens_total") == answer.usage.prompt_tokens_details.cached_tokens > 0
        assert sample(served, "time_to_first_token_seconds_count") == 2
        assert sample(served, "inter_token_latency_seconds_count") == 2 * (num_tokens - 1)
        assert sample(served, "e2e_request_latency_seconds_count") == 2
        first, inter, whole = (
            sample(served, f"{name}_seconds_sum") / 2
            for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
        )
        assert first + inter == pytest.approx(whole, rel=1e-3)
        assert whole >= num_tokens * STEP_S


def test_tokens_of_one_update_share_its_time():
    with running(engine(tokens_per_step=5, step_s=0.05)) as served:
        served.client.completions.create(model="nano", prompt="endless", max_tokens=50)
        assert sample(served, "inter_token_latency_seconds_count") == 9
        assert sample(served, "inter_token_latency_seconds_sum") / 9 == pytest.approx(0.01, rel=0.5)


def test_processor_time_of_both_processes_is_told():
    with running(engine()) as served:
        served.client.completions.create(model="nano", prompt="endless", max_tokens=50)
        assert sample(served, "engine_cpu_seconds_total") > 0
        assert "\nprocess_cpu_seconds_total " in httpx.get(f"{served.url}/metrics").text


def test_every_choice_counts():
    with running(engine()) as served:
        served.client.chat.completions.create(model="nano", messages=user("endless"), n=3, max_tokens=4)
        assert sample(served, "request_success_total", finished_reason="length") == 3
        assert sample(served, "generation_tokens_total") == 12


def test_a_stop_text_is_a_success_and_a_lost_client_is_not():
    with running(engine()) as served:
        served.client.chat.completions.create(model="nano", messages=user("count"), stop=["two"])
        assert sample(served, "request_success_total", finished_reason="stop") == 1
        stream = served.client.chat.completions.create(model="nano", messages=user("endless"), stream=True)
        next(stream)
        until(lambda: sample(served, "num_requests_running") == 1)
        assert sample(served, "kv_cache_usage_perc", pool="full") == 1 / 64
        assert sample(served, "kv_cache_usage_perc", pool="sliding") == 1 / 64
        stream.close()
        until(lambda: sample(served, "request_failure_total", reason="abort") == 1)
        until(lambda: sample(served, "num_requests_running") == 0)
        assert sample(served, "request_success_total", finished_reason="stop") == 1


def test_failures():
    with running(engine(fail_after=5)) as served:
        with pytest.raises(openai.InternalServerError):
            served.client.chat.completions.create(model="nano", messages=user("endless"))
        assert sample(served, "request_failure_total", reason="error") == 1


def test_prefix_cache_counters_are_the_engines():
    with running(engine()) as served:
        for _ in range(3):
            served.client.completions.create(model="nano", prompt=[5, 6, 7, 8], max_tokens=2)
        until(lambda: sample(served, "prefix_cache_queries_total") == 12)
        assert sample(served, "prefix_cache_hits_total") == 6


def test_two_servers_count_apart_and_need_no_key():
    with running(engine()) as first, running(engine(), api_key="secret") as second:
        first.client.completions.create(model="nano", prompt="x", max_tokens=2)
        assert sample(first, "generation_tokens_total") == 2
        assert sample(second, "generation_tokens_total") == 0


def test_open_metrics_where_it_is_asked_for():
    with running(FakeEngine(max_model_len=MAX_MODEL_LEN)) as served:
        plain = httpx.get(f"{served.url}/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        openmetrics = httpx.get(f"{served.url}/metrics", headers={"accept": "application/openmetrics-text"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")
