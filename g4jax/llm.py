"""The offline API: batches of prompts in, answers out, through the same engine that serves.

from g4jax import LLM, SamplingParams, guide

llm = LLM()                                          # the bundled checkpoint; LLM("google/gemma-4-E4B-it", mesh="tp=2")
llm.generate(["Once upon"], SamplingParams(max_tokens=20))[0].text
llm.generate("The sky is", grammar=guide.choice(["blue", "grey"]))[0].text
llm.chat([{"role": "user", "content": "What is 17+25?"}], enable_thinking=True)[0].content
llm.chat([{"role": "user", "content": [{"type": "image", "image": "cat.jpg"}, {"type": "text", "text": "Which?"}]}])
llm.score([[2, 5, 7]])[0]                            # log-probability of every token after the first
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from tqdm import tqdm

from g4jax.chat.detokenize import Detokenizer, StopStrings
from g4jax.chat.events import ToolCall, collect
from g4jax.chat.media_parts import media_parts
from g4jax.chat.output import OutputParser, ends_in_thought
from g4jax.chat.soft_tokens import expand
from g4jax.chat.template import ChatTemplate
from g4jax.chat.tokenizer import Tokenizer
from g4jax.config import Gemma4Config
from g4jax.engine.checkpoint import find_checkpoint
from g4jax.engine.launch import build_engine
from g4jax.engine.options import Dtype, EngineOptions, LoadFormat
from g4jax.engine.plan import Update
from g4jax.engine.request import Request, TokenLogprobs
from g4jax.guide import Guide, Guides, GuideSpec
from g4jax.media.inputs import PlacedInput
from g4jax.media.processor import MediaProcessor
from g4jax.sample.defaults import GenerationDefaults
from g4jax.sample.params import SamplingParams

Messages = Sequence[Mapping[str, Any]]
Media = tuple[PlacedInput, ...]


@dataclass
class Completion:
    """An answer as text. A stop id is the last of `token_ids`, not in the text. `finish_reason`: "stop", "length", or
    "error" where nothing could follow in the grammar.

    The log probabilities are there where the sampling parameters ask for them; the first of a prompt is None.
    """

    prompt_token_ids: list[int]
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)


@dataclass
class ChatCompletion:
    """An answer as a message. `finish_reason`: "stop", "length", "tool_calls", or "error" as of a `Completion`."""

    prompt_token_ids: list[int]
    token_ids: list[int]
    content: str | None
    reasoning: str | None
    tool_calls: list[ToolCall]
    finish_reason: str


class LLM:
    """One engine in this process.

    `model`: the bundled checkpoint where it is None, else a folder or a hub id. The other arguments are those of
    `EngineOptions`.

    Raises:
        InvalidOption, CheckpointError, ConfigError, MeshError: what is wrong and what would be right.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        mesh: str = "tp=1",
        dtype: Dtype = "auto",
        load_format: LoadFormat = "auto",
        max_batch: int | None = None,
        max_model_len: int | None = None,
        mem_fraction: float = 0.85,
    ):
        folder = find_checkpoint(model, with_weights=load_format != "dummy")
        options = EngineOptions(
            model=str(folder),
            mesh=mesh,
            dtype=dtype,
            load_format=load_format,
            max_batch=max_batch,
            max_model_len=max_model_len,
            mem_fraction=mem_fraction,
        )
        self.tokenizer = Tokenizer(folder)
        self.template = ChatTemplate.from_folder(folder, self.tokenizer)
        self.defaults = GenerationDefaults.from_folder(folder)
        self.stop_ids = self.tokenizer.stop_ids | self.defaults.stop_ids
        self.config = Gemma4Config.from_folder(folder)
        self.media = MediaProcessor.from_folder(folder, self.config)
        self.engine = build_engine(options, lambda text, done, total: None, compile_ahead=False)
        self._ids = itertools.count()

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        grammar: str | Sequence[str | None] | None = None,
        progress: bool = True,
    ) -> list[Completion]:
        """Continues texts (a bos is put before them) or token ids (taken as they are), in the order given.

        One set of parameters serves all prompts, or there is one for each; None: the checkpoint's defaults. So does
        `grammar`, which the answer must match, as the functions of `g4jax.guide` write it; None: any answer will do.

        Raises:
            GrammarError: a grammar that is none, or that nothing fits.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        ids = [self.tokenizer.encode_prompt(p) if isinstance(p, str) else list(p) for p in prompts]
        texts = [_Text(self.tokenizer, params) for params in self._params(sampling_params, len(ids))]
        return [self._completion(*done) for done in self._run(ids, texts, self._follow(grammar, ids), progress)]

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        grammar: str | Sequence[str | None] | None = None,
        max_soft_tokens: int | None = None,
        progress: bool = True,
        **template_kwargs: Any,
    ) -> list[ChatCompletion]:
        """Answers one conversation, or several with the same tools. `template_kwargs`: `enable_thinking=True`, say.

        Contents are texts or lists of parts: `{"type": "text", "text": ...}`, `{"type": "image", "image": ...}` and so
        "audio" and "video", or OpenAI's forms of these. An image is a path, a URL, a file's content, an array or a PIL
        image; a sound a path, a URL, a file's content, samples at 16 kHz, or samples and their rate; a video a path, a
        URL, a file's content, or frames. `max_soft_tokens`: of each image and each frame (70, 140, 280, 560, 1120).
        `grammar`: as of `generate`; a thought may come before what matches it, where the model is asked to think.

        Raises:
            MediaError: a medium that cannot be read, or that the model does not take.
            GrammarError: as of `generate`.
        """
        single = bool(messages) and isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = [messages] if single else messages
        encoded = [self._encode(each, tools, max_soft_tokens, template_kwargs) for each in conversations]
        ids, media = [each[0] for each in encoded], [each[1] for each in encoded]
        texts = [_Text(self.tokenizer, params) for params in self._params(sampling_params, len(ids))]
        guides = self._follow(grammar, ids)
        return [self._message(tools, *done) for done in self._run(ids, texts, guides, progress, media)]

    def _encode(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None,
        max_soft_tokens: int | None,
        template_kwargs: Mapping[str, Any],
    ) -> tuple[list[int], Media]:
        parts = media_parts(messages)
        media = [self.media.load(kind, source, max_soft_tokens) for kind, source in parts]
        return expand(self.template.encode(messages, tools, **template_kwargs), media, self.tokenizer)

    def score(self, token_ids: Iterable[Sequence[int]], *, progress: bool = True) -> list[np.ndarray]:
        """Log-probabilities `[T - 1]` of every token after the first, given those before it."""
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        scored = self.generate([list(ids) for ids in token_ids], params, progress=progress)
        return [np.array([entry.logprob for entry in each.prompt_logprobs if entry is not None]) for each in scored]

    def _params(self, given: SamplingParams | Sequence[SamplingParams] | None, count: int) -> Sequence[SamplingParams]:
        if given is None:
            given = self.defaults.params()
        if isinstance(given, SamplingParams):
            return [given] * count
        if len(given) != count:
            raise ValueError(f"sampling_params: {len(given)} given for {count} prompts; give one, or one for each")
        return given

    def _follow(self, grammar: str | Sequence[str | None] | None, prompts: list[list[int]]) -> list[Guide | None]:
        """A guide for each prompt whose answer has a grammar."""
        grammars = [grammar] * len(prompts) if grammar is None or isinstance(grammar, str) else grammar
        if len(grammars) != len(prompts):
            raise ValueError(f"grammar: {len(grammars)} given for {len(prompts)} prompts; give one, or one for each")
        return [None if one is None else self._guide(one, ids) for one, ids in zip(grammars, prompts, strict=True)]

    def _guide(self, grammar: str, prompt_ids: list[int]) -> Guide:
        in_thought = ends_in_thought(self.tokenizer, prompt_ids)
        may_think = in_thought or self.tokenizer.control.think in prompt_ids
        return self._guides.start(GuideSpec(grammar, may_think, in_thought))

    @cached_property
    def _guides(self) -> Guides:
        return Guides(self.tokenizer, self.config.text.vocab_size, self.stop_ids)

    def _run(
        self,
        prompts: list[list[int]],
        texts: list["_Text"],
        guides: list[Guide | None],
        progress: bool,
        media: Sequence[Media] = (),
    ) -> list[tuple[Request, "_Text"]]:
        """Runs everything; requests and their texts in the order given."""
        requests = [
            Request(str(next(self._ids)), ids, text.params, self.stop_ids, guide=guide, media=placed)
            for ids, text, guide, placed in zip(prompts, texts, guides, media or [()] * len(prompts), strict=True)
        ]
        for request in requests:
            self.engine.add_request(request)
        open_texts = dict(zip((request.id for request in requests), texts, strict=True))
        with tqdm(total=len(requests), disable=not progress, unit="prompt") as bar:
            while self.engine.has_work:
                for update in self.engine.step():
                    bar.update(self._take(update, open_texts[update.request_id]))
        return list(zip(requests, texts, strict=True))

    def _take(self, update: Update, text: "_Text") -> bool:
        """Whether the update ends its request."""
        text.logprobs += update.logprobs
        text.prompt_logprobs = update.prompt_logprobs or text.prompt_logprobs
        if text.feed(update.token_ids):
            self.engine.abort(update.request_id)
            return True
        return update.finish_reason is not None

    def _completion(self, request: Request, text: "_Text") -> Completion:
        reason = "stop" if text.stopped else request.finish_reason or ""
        logprobs = text.logprobs[: len(text.ids)]
        return Completion(request.prompt_ids, text.ids, text.value(), reason, logprobs, text.prompt_logprobs)

    def _message(self, tools: Sequence[Mapping[str, Any]] | None, request: Request, text: "_Text") -> ChatCompletion:
        parser = OutputParser(self.tokenizer, prompt_ids=request.prompt_ids, tools=tools)
        message = collect([*parser.feed(text.ids), *parser.finish()])
        reason = parser.finish_reason("stop" if text.stopped else request.finish_reason or "")
        return ChatCompletion(
            request.prompt_ids, text.ids, message.content, message.reasoning, message.tool_calls, reason
        )


class _Text:
    """The ids of one answer, cut at its first stop text."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams):
        self.params = params
        self.ids: list[int] = []
        self.stopped = False
        self.logprobs: list[TokenLogprobs] = []
        self.prompt_logprobs: list[TokenLogprobs | None] = []
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(params.stop)
        self._pieces: list[str] = []

    def feed(self, ids: list[int]) -> bool:
        """Whether a stop text came."""
        for token in ids:
            self.ids.append(token)
            self._add(self._detokenizer.feed([token]))
            if self.stopped:
                break
        return self.stopped

    def value(self) -> str:
        if not self.stopped:
            self._add(self._detokenizer.flush())
            self._pieces.append(self._stops.flush())
        return "".join(self._pieces)

    def _add(self, text: str) -> None:
        piece, matched = self._stops.feed(text)
        self._pieces.append(piece)
        self.stopped = matched is not None
