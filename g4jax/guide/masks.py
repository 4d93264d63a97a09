"""What may come next, of many answers at once."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from llguidance import LLExecutor
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par


@runtime_checkable
class Asking(Protocol):
    """A `Guide`, or what stands for one."""

    @property
    def asks(self) -> Any: ...
    def complete(self, row: np.ndarray) -> None: ...


def fill_masks(guides: Sequence[Asking | None], masks: np.ndarray) -> None:
    """Writes what each guide allows next into its row; rows without a guide are left as they are.

    masks: uint32 [at least as many rows as guides, ceil(V / 32)], bit i % 32 of word i // 32; all zero at a dead end.
    Grammars are asked on several processors: each takes some 20 us with 262,144 tokens.
    """
    asks = [None if guide is None else guide.asks for guide in guides]
    asked = [(matcher, row) for row, matcher in enumerate(asks) if matcher is not None]
    words = masks.view(np.int32)
    if len(asked) == 1:
        fill_next_token_bitmask(asked[0][0], words, asked[0][1])
    elif asked:
        fill_next_token_bitmask_par(_processors(), asked, words)
    for row, guide in enumerate(guides):
        if guide is not None:
            guide.complete(masks[row])


@functools.cache
def _processors() -> LLExecutor:
    return LLExecutor()
