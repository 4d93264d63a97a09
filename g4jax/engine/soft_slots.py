"""Which rows of the device's store of soft tokens hold which encoder output. Host code without jax.

An image that comes again, in the next turn or from another client, is found by its digest. What has not been used for
the longest time makes room for what is new.
"""

from collections.abc import Collection

import numpy as np


class SoftSlots:
    """`count` rows, one for each soft token."""

    def __init__(self, count: int):
        self.count = count
        self._free = list(range(count))
        self._held: dict[bytes, np.ndarray] = {}
        """By digest, the least recently used first."""

    def find(self, digest: bytes) -> np.ndarray | None:
        """The rows of an output in order, int32 `[n]`; None where it is not here."""
        rows = self._held.pop(digest, None)
        if rows is not None:
            self._held[digest] = rows
        return rows

    def take(self, digest: bytes, num_tokens: int, *, keep: Collection[bytes]) -> np.ndarray:
        """Rows for an output that is not here; those of `keep` are not taken away.

        Raises:
            ValueError: the outputs to keep leave no room.
        """
        for old in [held for held in self._held if held not in keep]:
            if len(self._free) >= num_tokens:
                break
            self._free += self._held.pop(old).tolist()
        if len(self._free) < num_tokens:
            raise ValueError(f"{num_tokens} soft tokens do not fit beside {len(keep)} others into {self.count}")
        rows = np.array(self._free[:num_tokens], np.int32)
        del self._free[:num_tokens]
        self._held[digest] = rows
        return rows

    def forget(self) -> None:
        """Nothing that is here now is found again."""
        for rows in self._held.values():
            self._free += rows.tolist()
        self._held.clear()
