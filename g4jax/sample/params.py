"""How a request wants its tokens drawn and when it wants to stop. No jax here: the HTTP process imports this."""

from dataclasses import dataclass

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
INT32_MAX = 2**31 - 1


class InvalidParameter(ValueError):
    """A value that a caller can put right. `field` is its name, `message` says what is allowed."""

    def __init__(self, field: str, message: str):
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message

    def __reduce__(self):
        return InvalidParameter, (self.field, self.message)


@dataclass(frozen=True)
class SamplingParams:
    """Validated sampling parameters; every error is an `InvalidParameter` that names the field.

    max_tokens: most tokens to generate, None = as many as the context holds.
    temperature: 0 is greedy, at most 100. top_k: 0 or -1 is off. top_p, min_p: in [0, 1].
    repetition_penalty: over prompt and output, in [0.01, 100], 1 is off.
    presence_penalty, frequency_penalty: over the output, in [-2, 2].
    seed: the same seed and prompt draw the same tokens, whatever else is in the batch. Its low 32 bits count;
        None draws a new one per request.
    stop: texts that end the output. stop_token_ids: ids that end it, besides the model's own.
    ignore_eos: only `stop` and `stop_token_ids` end the output, the model's own end ids do not.
    min_tokens: a stop id ends the output only as token number `min_tokens` (itself included) or later.
    logprobs: None = none, n = those of the drawn token and of the n likeliest, at most 20.
    prompt_logprobs: the same for every token of the prompt, which is then computed whole, cached or not.
    logit_bias: (token id, value in [-100, 100]) pairs, added to the logits; at most 1024.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self):
        # A lone string or a list is what callers write; kept as tuples the value stays hashable.
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else _tuple("stop", self.stop))
        object.__setattr__(self, "stop_token_ids", _tuple("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "logit_bias", tuple(map(tuple, _tuple("logit_bias", self.logit_bias))))
        self._check_ranges()
        self._check_stops()
        self._check_bias()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    @property
    def is_shaped(self) -> bool:
        """Its tokens are drawn from changed logits, or their log probabilities are told."""
        return bool(self.has_penalties or self.min_tokens or self.logit_bias or self.logprobs is not None)

    def _check_ranges(self) -> None:
        _whole("max_tokens", self.max_tokens, low=1, optional=True)
        _number("temperature", self.temperature, low=0.0, high=100.0)
        _whole("top_k", self.top_k, low=-1, high=INT32_MAX)
        _number("top_p", self.top_p, low=0.0, high=1.0)
        _number("min_p", self.min_p, low=0.0, high=1.0)
        _number("repetition_penalty", self.repetition_penalty, low=0.01, high=100.0)
        _number("presence_penalty", self.presence_penalty, low=-2.0, high=2.0)
        _number("frequency_penalty", self.frequency_penalty, low=-2.0, high=2.0)
        _whole("seed", self.seed, optional=True)
        _whole("min_tokens", self.min_tokens, low=0)
        _whole("logprobs", self.logprobs, low=0, high=MAX_LOGPROBS, optional=True)
        _whole("prompt_logprobs", self.prompt_logprobs, low=0, high=MAX_LOGPROBS, optional=True)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter("min_tokens", f"is {self.min_tokens}, more than max_tokens ({self.max_tokens})")

    def _check_stops(self) -> None:
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise InvalidParameter("stop", f"must hold texts that are not empty, got {text!r}")
        for token in self.stop_token_ids:
            _whole("stop_token_ids", token, low=0, high=INT32_MAX)

    def _check_bias(self) -> None:
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidParameter("logit_bias", f"has {len(self.logit_bias)} entries, at most {MAX_LOGIT_BIAS}")
        for token, value in self.logit_bias:
            _whole("logit_bias", token, low=0, high=INT32_MAX)
            _number("logit_bias", value, low=-100.0, high=100.0)


def _tuple(field: str, value) -> tuple:
    if not isinstance(value, tuple | list | set | frozenset):
        raise InvalidParameter(field, f"must be a list, got {value!r}")
    return tuple(value)


def _whole(field: str, value, *, low: int | None = None, high: int | None = None, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidParameter(field, f"must be a whole number, got {value!r}")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise InvalidParameter(field, f"must be {limits}, got {value}")


def _number(field: str, value, *, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidParameter(field, f"must be a number in [{low:g}, {high:g}], got {value!r}")
