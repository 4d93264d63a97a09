"""What the start looks like on stderr: a bar for each stage on a terminal, a line for each in a log."""

import logging
import sys
import time

from tqdm import tqdm

from server.engine_client import EngineClient
from server.messages import Progress

log = logging.getLogger("g4jax")


class StartReport:
    """Follows the engine until it is ready. `name` is the model's, `address` where the server listens."""

    def __init__(self, client: EngineClient, name: str, address: str):
        self._client = client
        self._name = name
        self._address = address
        self._began_s = time.monotonic()
        self._stage = ""
        self._bar: tqdm | None = None

    def update(self) -> None:
        """Call it whenever the state of the engine has changed."""
        if self._client.failure is not None:
            self._close_bar()
        elif self._client.info is not None:
            self._close_bar()
            self._announce(self._client.info.max_model_len)
        elif self._client.progress is not None:
            self._show(self._client.progress)

    def _show(self, progress: Progress) -> None:
        if progress.text != self._stage:
            self._close_bar()
            self._stage = progress.text
            log.info("%s", progress.text)
            self._bar = tqdm(total=progress.total, leave=False, unit_scale=True) if sys.stderr.isatty() else None
        if self._bar is not None:
            self._bar.update(progress.done - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _announce(self, max_model_len: int) -> None:
        seconds = time.monotonic() - self._began_s
        log.info("%s is ready at %s/v1 after %.1f s, context %d", self._name, self._address, seconds, max_model_len)
