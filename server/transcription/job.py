"""A transcription on its way to the engine: one request for each piece of speech, all at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from g4jax.sample.params import SamplingParams
from server import convert
from server.chat_job import ChatJob
from server.chat_output import Wishes
from server.job import Job
from server.messages import Add, MediaData
from server.serving import Serving
from server.transcription.schemas import SpeechForm
from server.transcription.speech import Speech, speech_of

SPARE_TOKENS = 64
TOKENS_PER_SECOND = 32
"""More than anybody says: a model that repeats itself ends there."""


@dataclass(frozen=True)
class SpeechJob:
    """`chat.outputs[i]` reads what is said in `pieces[i]`."""

    chat: ChatJob
    pieces: Sequence[Speech]

    @property
    def duration_s(self) -> float:
        return self.pieces[-1].end_s

    @property
    def audio_tokens(self) -> int:
        return sum(piece.num_tokens for speech in self.pieces for piece in speech.medium.inputs)


async def speech_job(serving: Serving, form: SpeechForm, instruction: str) -> SpeechJob:
    """Reads the file and makes the prompts; ApiError for what cannot be served."""
    serving.check_model(form.model)
    max_model_len = serving.engine().max_model_len
    serving.media.check("audio", "model")
    pieces = await serving.media.run("file", lambda: speech_of(serving.media.processor, form.file))
    request_id = convert.new_id("transcript-")
    adds = await asyncio.to_thread(_adds, serving, form, instruction, pieces, request_id, max_model_len)
    wishes = Wishes(logprobs=adds[0].params.logprobs)
    # Whatever the server does with thoughts elsewhere, they are no transcript.
    chat = replace(serving.chat, parse_reasoning=serving.chat.tokenizer.control.channel_open is not None)
    outputs = [chat.output(add.prompt_ids, (), wishes) for add in adds]
    return SpeechJob(Job(request_id, int(time.time()), serving.model.names[0], adds, outputs, 1), pieces)


def _adds(
    serving: Serving, form: SpeechForm, instruction: str, pieces: Sequence[Speech], request_id: str, max_model_len: int
) -> list[Add]:
    content = [{"type": "audio"}, {"type": "text", "text": instruction}]
    ids = serving.chat.encode_chat([{"role": "user", "content": content}], (), {"enable_thinking": False})
    adds = []
    for index, speech in enumerate(pieces):
        prompt_ids, media = serving.chat.place(ids, [speech.medium])
        convert.check_length("file", len(prompt_ids), "max_tokens", None, max_model_len)
        most = SPARE_TOKENS + int((speech.end_s - speech.start_s) * TOKENS_PER_SECOND)
        params = SamplingParams(
            max_tokens=min(most, max_model_len - len(prompt_ids)),
            temperature=form.temperature,
            logprobs=0 if form.response_format == "verbose_json" else None,
        )
        placed = [MediaData.of(each) for each in media]
        stop_ids = sorted(serving.model.stop_ids)
        adds.append(Add(f"{request_id}-{index}", prompt_ids, params, stop_ids, media=placed))
    return adds
