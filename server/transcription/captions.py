"""Segments as subtitles."""

from collections.abc import Sequence

from server.transcription.answer import Segment


def srt(segments: Sequence[Segment]) -> str:
    """SubRip."""
    blocks = [
        f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n{segment.text}\n"
        for number, segment in enumerate(segments, 1)
    ]
    return "\n".join(blocks)


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT. An arrow would end a cue's text, so it is written as an entity."""
    blocks = [
        f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n{_escaped(segment.text)}\n" for segment in segments
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    """HH:MM:SS and milliseconds behind `point`."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
