"""A request on its way: the engine's requests and, for each of them, one choice of the answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

from server.answers import StopReason, Usage
from server.errors import ApiError
from server.messages import Add, Update
from server.serving import Serving

PieceT = TypeVar("PieceT", covariant=True)
OutputT = TypeVar("OutputT", bound="Output")


class Output(Protocol[PieceT]):
    """What turns the tokens of one choice into pieces of the answer.

    It may end earlier than the engine, at a stop text say; `num_tokens` counts up to its own end.
    """

    num_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    finish_reason: StopReason | None
    matched_stop: int | str | None

    def feed(self, update: Update) -> PieceT: ...


@dataclass
class Job(Generic[OutputT, PieceT]):
    """`outputs[i]` reads what `adds[i]` gives. Each prompt stands `n` times in a row."""

    id: str
    created: int
    model: str
    adds: list[Add]
    outputs: list[OutputT]
    n: int

    async def pieces(self, serving: Serving) -> AsyncGenerator[tuple[int, PieceT], None]:
        """(choice, its next piece) as it comes. A choice that has ended is aborted in the engine at once.

        Raises:
          ApiError: the engine is gone, or one of the answers cannot go on under its grammar.
        """
        indices = {add.id: index for index, add in enumerate(self.adds)}
        async with aclosing(serving.generate(self.adds)) as updates:
            async for update in updates:
                if update.finish_reason == "error":
                    message = f"the answer cannot go on: {update.error}"
                    raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="grammar_dead_end")
                index = indices[update.id]
                yield index, self.outputs[index].feed(update)
                if self.outputs[index].finish_reason is not None:
                    serving.client.abort(update.id)

    def usage(self) -> Usage:
        """The tokens so far; a prompt counts once, however many choices it has."""
        return Usage.count(
            prompt=sum(len(add.prompt_ids) for add in self.adds[:: self.n]),
            completion=sum(output.num_tokens for output in self.outputs),
            cached=sum(output.cached_tokens for output in self.outputs[:: self.n]),
            reasoning=sum(output.reasoning_tokens for output in self.outputs),
        )
