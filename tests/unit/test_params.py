import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4jax.engine.request import Request
from g4jax.sample.params import InvalidParameter, SamplingParams

WRONG = [
    {"max_tokens": 0},
    {"max_tokens": 1.5},
    {"temperature": -0.1},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"temperature": True},
    {"top_k": -2},
    {"top_k": 2**31},
    {"top_p": 1.01},
    {"top_p": "0.9"},
    {"min_p": -0.01},
    {"repetition_penalty": 0.0},
    {"presence_penalty": 2.5},
    {"frequency_penalty": -2.5},
    {"seed": 1.0},
    {"stop": ("a", "")},
    {"stop": 3},
    {"stop_token_ids": (-1,)},
    {"stop_token_ids": 106},
    {"min_tokens": -1},
    {"logprobs": 21},
]


def unchecked(**fields) -> SamplingParams:
    """What a caller without a type checker gets: the tests' own would speak before the class does."""
    params = object.__new__(SamplingParams)
    for name, value in (vars(SamplingParams()) | fields).items():
        object.__setattr__(params, name, value)
    params.__post_init__()
    return params


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_wrong_value_names_its_field(fields):
    (name,) = fields
    with pytest.raises(InvalidParameter) as error:
        unchecked(**fields)
    assert error.value.field == name
    assert str(error.value).startswith(f"{name}: must")


def test_min_tokens_may_not_exceed_max_tokens():
    with pytest.raises(InvalidParameter, match="min_tokens: is 5, more than max_tokens"):
        SamplingParams(max_tokens=4, min_tokens=5)


def test_edges_are_allowed_and_lists_become_tuples():
    params = unchecked(temperature=0, top_k=-1, top_p=0, min_p=1, stop="end", stop_token_ids=[7], logprobs=0)
    assert params.greedy and params.stop == ("end",) and params.stop_token_ids == (7,)
    assert not params.has_penalties and SamplingParams(presence_penalty=0.5).has_penalties
    hash(params)


def test_the_error_survives_a_process_border():
    error = pickle.loads(pickle.dumps(InvalidParameter("top_p", "must be in [0, 1]")))
    assert (error.field, error.message) == ("top_p", "must be in [0, 1]")


@given(st.integers(min_value=-(2**70), max_value=2**70))
def test_any_seed_fits_the_device(seed):
    assert Request("a", [1], SamplingParams(seed=seed)).seed == seed % 2**32


def test_requests_without_a_seed_differ():
    assert len({Request("a", [1]).seed for _ in range(8)}) > 1


@pytest.mark.parametrize(("ignore_eos", "expected"), [(False, {1, 106, 9}), (True, {9})])
def test_stop_ids_of_a_request(ignore_eos, expected):
    params = SamplingParams(stop_token_ids=(9,), ignore_eos=ignore_eos)
    assert Request("a", [3], params, stop_ids=frozenset({1, 106})).stop_ids == expected


def test_a_stop_id_counts_from_min_tokens_on():
    request = Request("a", [3], SamplingParams(min_tokens=2), stop_ids=frozenset({1}))
    assert request.take([1], max_model_len=9) == [1]
    assert request.finish_reason is None
    assert request.take([1], max_model_len=9) == [1]
    assert (request.finish_reason, request.stop_id, request.output_ids) == ("stop", 1, [1, 1])


@pytest.mark.parametrize(
    ("drawn", "taken", "reason", "stop_id"),
    [
        ([5, 6, 7], [5, 6, 7], None, None),
        ([5, 6, -1], [5, 6], None, None),  # its budget ended
        ([5, 1, 6, 1], [5, 1, 6, 1], "stop", 1),  # the first is before min_tokens
        ([5, 6, 1, 2], [5, 6, 1], "stop", 1),
        ([5, 6, 7, 8, 9, 9], [5, 6, 7, 8, 9], "length", None),
        ([5, 6, 7, 8, 2, 9], [5, 6, 7, 8, 2], "stop", 2),  # the last there is room for
    ],
)
def test_takes_what_was_drawn_up_to_the_end(drawn, taken, reason, stop_id):
    request = Request("a", [3], SamplingParams(min_tokens=3, max_tokens=5), stop_ids=frozenset({1, 2}))
    assert request.take(drawn, max_model_len=9) == taken
    assert (request.finish_reason, request.stop_id) == (reason, stop_id)
    assert request.output_ids == taken
    assert request.tokens == request.content == [3, *taken]


def test_host_logic_imports_without_jax():
    names = "sample.params engine.request engine.scheduler cache.allocator cache.prefix".split()
    code = "import sys; sys.modules.update(jax=None, jaxlib=None, flax=None)\n"
    code += "\n".join(f"import g4jax.{name}" for name in names)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
