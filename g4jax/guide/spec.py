"""What an answer must look like, as it travels from the HTTP process to the engine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GuideSpec:
    """A wish about the form of one answer.

    grammar: what the answer must match, as the functions of `g4jax.guide` write it; None leaves it free.
    may_think: a thought may come first. It is free, and the grammar begins behind it.
    in_thought: the prompt ends inside an open channel, so the answer begins within the thought.
    thinking_budget: most tokens of thought; then the token that closes the channel is forced. None: no limit.
    """

    grammar: str | None = None
    may_think: bool = False
    in_thought: bool = False
    thinking_budget: int | None = None
