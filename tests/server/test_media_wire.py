"""Messages with arrays, from one end of a connection to the other."""

import multiprocessing
import threading

import numpy as np
import pytest

from g4jax.media.inputs import PlacedInput, SoftInput
from g4jax.sample.params import SamplingParams
from server.messages import Abort, Add, MediaData, encode
from server.wire import receive, send


def add(*arrays: np.ndarray) -> Add:
    inputs = [SoftInput("image", array, (1, 2), 3, bytes(range(16))) for array in arrays]
    media = [MediaData.of(PlacedInput(i, each)) for i, each in enumerate(inputs)]
    return Add("a", [1, 2], SamplingParams(), media=media)


def through(*messages: Add | Abort) -> list:
    ours, theirs = multiprocessing.Pipe()
    writer = threading.Thread(target=lambda: [send(ours, message) for message in messages])
    writer.start()
    got = [receive(theirs) for _ in messages]
    writer.join(10)
    assert not theirs.poll()
    return got


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(12, dtype=np.uint8).reshape(3, 4)],
        [np.random.default_rng(0).integers(0, 256, (2376, 768), np.uint8), np.ones((100, 128), np.float32)],
        [np.zeros((0, 128), np.float32), np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]],
    ],
    ids=["none", "small", "larger than the connection holds", "empty and with gaps"],
)
def test_arrays_come_as_they_were(arrays):
    message = add(*arrays)
    got, after = through(message, Abort("a"))
    assert (got.id, got.prompt_ids, got.params) == (message.id, message.prompt_ids, message.params)
    assert after == Abort("a") and len(got.media) == len(arrays)
    for index, (medium, array) in enumerate(zip(got.media, arrays, strict=True)):
        placed = medium.placed()
        assert (placed.start, placed.input.grid, placed.input.num_tokens) == (index, (1, 2), 3)
        assert placed.input.digest == bytes(range(16)) and placed.input.data.dtype == array.dtype
        np.testing.assert_array_equal(placed.input.data, array)


def test_the_end_in_the_middle_of_an_array():
    ours, theirs = multiprocessing.Pipe()
    ours.send_bytes(encode(add(np.zeros((100, 768), np.uint8))))
    ours.send_bytes(bytes(1000))
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)


def test_nobody_reads_any_more():
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(OSError):
        send(ours, add(np.zeros((2376, 768), np.uint8)))
