"""Transcripts without a server: the joining of pieces, the times of subtitles, the names of languages."""

import pytest

from server.transcription.answer import Segment
from server.transcription.captions import srt, vtt
from server.transcription.languages import NAMES, language_name
from server.transcription.text import JoinedText


def test_pieces_are_told_in_order():
    text = JoinedText(3)
    assert text.add(1, "three ", ended=False) == ""
    assert text.add(2, " four", ended=True) == ""
    assert text.add(0, " one", ended=False) == "one"
    assert text.add(0, " two", ended=False) == " two"
    assert text.add(0, " \n", ended=True) == " three"
    assert text.add(1, "and", ended=False) == " and"
    assert text.add(1, " ", ended=True) == " four"
    assert text.text == "one two three and four"


def test_piece_of_silence_leaves_no_gap():
    text = JoinedText(3)
    for index, piece in enumerate(["one", " \n ", "two"]):
        text.add(index, piece, ended=True)
    assert text.text == "one two"


def test_scripts_without_blanks_are_joined_without():
    text = JoinedText(2)
    text.add(0, "日本。", ended=True)
    assert text.add(1, "日本", ended=True) == "日本"


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(0, 0, start, end, text, [], 0.0, 0.0, 1.0)


def test_times_of_subtitles():
    late = segment(3599.9996, 7325.25, "x")
    assert "\n01:00:00,000 --> 02:02:05,250\n" in srt([late])
    assert "\n01:00:00.000 --> 02:02:05.250\n" in vtt([late])


def test_markup_of_a_cue_stays_text():
    assert vtt([segment(0, 1, "a --> <b> & c")]).endswith("a --&gt; &lt;b&gt; &amp; c\n")
    assert srt([]) == "" and vtt([]) == "WEBVTT\n"


@pytest.mark.parametrize(
    ("given", "name"),
    [("en", "English"), ("EN-us", "English"), (" German ", "German"), ("zh_TW", "Chinese"), ("xx", None), ("", None)],
)
def test_names_of_languages(given, name):
    assert language_name(given) == name


def test_every_language_goes_by_its_name():
    assert all(language_name(name) == name and len(code) in (2, 3) for code, name in NAMES.items())
