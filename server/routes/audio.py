"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from fastapi import APIRouter, Request, Response

from server.answers import encode_json
from server.openapi import described_form
from server.serving import Serving
from server.stream import unless_gone
from server.transcription import instructions
from server.transcription.answer import Transcript
from server.transcription.captions import srt, vtt
from server.transcription.form import read_form
from server.transcription.job import SpeechJob, speech_job
from server.transcription.respond import Task, text_events, usage, verbose_transcript, whole_text
from server.transcription.schemas import SpeechForm, TranscriptionForm, TranslationForm
from server.translate.named_events import NamedEventStream


def routes(serving: Serving) -> APIRouter:
    router = APIRouter(prefix="/v1/audio")

    @router.post("/transcriptions", openapi_extra=described_form(TranscriptionForm))
    async def transcriptions(request: Request) -> Response:
        form = await read_form(request, TranscriptionForm)
        job = await speech_job(serving, form, instructions.transcription(form.language, form.prompt))
        return await _answer(serving, request, form, job, "transcribe", form.language)

    @router.post("/translations", openapi_extra=described_form(TranslationForm))
    async def translations(request: Request) -> Response:
        form = await read_form(request, TranslationForm)
        job = await speech_job(serving, form, instructions.translation(form.language, form.prompt))
        return await _answer(serving, request, form, job, "translate", "English")

    return router


async def _answer(
    serving: Serving, request: Request, form: SpeechForm, job: SpeechJob, task: Task, language: str | None
) -> Response:
    if form.stream:
        return NamedEventStream(text_events(serving, job))
    whole = await unless_gone(request.receive, _whole(serving, form, job, task, language))
    return whole or Response(b"")


async def _whole(serving: Serving, form: SpeechForm, job: SpeechJob, task: Task, language: str | None) -> Response:
    if form.response_format == "json":
        transcript = Transcript(await whole_text(serving, job), usage(job))
        return Response(encode_json(transcript), media_type="application/json")
    if form.response_format == "text":
        return _text(await whole_text(serving, job) + "\n")
    verbose = await verbose_transcript(serving, job, task, language, form.temperature)
    match form.response_format:
        case "srt":
            return _text(srt(verbose.segments))
        case "vtt":
            return _text(vtt(verbose.segments), "text/vtt")
    return Response(encode_json(verbose), media_type="application/json")


def _text(content: str, media_type: str = "text/plain") -> Response:
    return Response(content, media_type=media_type)
