"""A transcript from its beginning to its end, streamed or whole."""

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from server.serving import Serving
from server.transcription.answer import (
    Duration,
    Event,
    InputDetails,
    Segment,
    TextDelta,
    TextDone,
    Usage,
    VerboseTranscript,
)
from server.transcription.job import SpeechJob
from server.transcription.text import JoinedText

Task = Literal["transcribe", "translate"]


async def whole_text(serving: Serving, job: SpeechJob) -> str:
    text = JoinedText(len(job.pieces))
    async with aclosing(_texts(serving, job)) as pieces:
        async for index, piece in pieces:
            text.add(index, piece, job.chat.outputs[index].finish_reason is not None)
    return text.text


async def text_events(serving: Serving, job: SpeechJob) -> AsyncGenerator[Event, None]:
    text = JoinedText(len(job.pieces))
    async with aclosing(_texts(serving, job)) as pieces:
        async for index, piece in pieces:
            if told := text.add(index, piece, job.chat.outputs[index].finish_reason is not None):
                yield TextDelta(told)
    yield TextDone(text.text, usage(job))


async def verbose_transcript(
    serving: Serving, job: SpeechJob, task: Task, language: str | None, temperature: float
) -> VerboseTranscript:
    """One segment for each piece in which something is said. `language`: what the text is in, if that is known."""
    joined, texts = JoinedText(len(job.pieces)), [""] * len(job.pieces)
    async with aclosing(_texts(serving, job)) as pieces:
        async for index, piece in pieces:
            texts[index] += piece
            joined.add(index, piece, job.chat.outputs[index].finish_reason is not None)
    segments: list[Segment] = []
    for speech, text, output in zip(job.pieces, texts, job.chat.outputs, strict=True):
        logprobs = output.take_logprobs()
        if text.strip():
            raw = text.strip().encode()
            entries = [] if logprobs is None else logprobs.content
            segment = Segment(
                id=len(segments),
                seek=int(speech.start_s * 100),
                start=speech.start_s,
                end=speech.end_s,
                text=text.strip(),
                tokens=serving.chat.tokenizer.encode_text(text.strip()),
                temperature=temperature,
                avg_logprob=sum(entry.logprob for entry in entries) / max(len(entries), 1),
                compression_ratio=len(raw) / len(zlib.compress(raw)),
            )
            segments.append(segment)
    named = (language or "unknown").lower()
    return VerboseTranscript(task, named, job.duration_s, joined.text, segments, Duration(job.duration_s))


def usage(job: SpeechJob) -> Usage:
    """The tokens so far."""
    counted = job.chat.usage()
    details = InputDetails(job.audio_tokens, counted.prompt_tokens - job.audio_tokens)
    return Usage(counted.prompt_tokens, counted.completion_tokens, counted.total_tokens, details)


async def _texts(serving: Serving, job: SpeechJob) -> AsyncGenerator[tuple[int, str], None]:
    """(piece, the next of its text, which may be empty) as it comes."""
    async with aclosing(job.chat.pieces(serving)) as pieces:
        async for index, deltas in pieces:
            yield index, "".join(delta.content for delta in deltas if delta.content)
