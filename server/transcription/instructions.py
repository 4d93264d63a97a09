"""What the model is told to do with a piece of speech, in the words that it was trained on."""

_RULES = """

Follow these specific instructions for formatting the answer:
*   Only output the {what}, with no newlines.
*   When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, \
and write 3 instead of three."""


def transcription(language: str | None, spelling: str | None) -> str:
    """language: its English name. spelling: text that shows how names and terms are written."""
    within = "its original language" if language is None else language
    into = "its original language" if language is None else f"{language} text"
    task = f"Transcribe the following speech segment in {within} into {into}."
    return task + _RULES.format(what="transcription") + _spelled(spelling)


def translation(language: str | None, spelling: str | None) -> str:
    """Into English; as `transcription`."""
    within = "its original language" if language is None else language
    task = f"Transcribe the following speech segment in {within}, then translate it into English."
    return task + _RULES.format(what="translation in English") + _spelled(spelling)


def _spelled(spelling: str | None) -> str:
    return f"\n*   Spell names and terms as in this text: {spelling.strip()}" if spelling and spelling.strip() else ""
