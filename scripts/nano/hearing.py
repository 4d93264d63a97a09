"""What nano can be asked about a sound: sounds, the questions that fit them, and the one right answer to each."""

import random
from collections.abc import Callable

import numpy as np

from scripts.nano import sounds, voices

Asked = tuple[str, str]
Clip = tuple[np.ndarray, dict[str, list[Asked]]]
"""Samples at 16 kHz and, by ability, questions with their answers."""

RATE = sounds.RATE
LONGEST_SECONDS = 4.2
"""Longer sounds are drawn anew: so much fits the ears of a training step."""
ORDINALS = ("first", "second", "third")

HOW_MANY = (
    "How many {s} do you hear?|How many {s} are there?|Count the {s}.|how many {s} are in the audio|"
    "How many {s} can you hear?|What is the number of {s}?|How many {s} are in this recording?"
).split("|")
DIRECTION = (
    "Does the pitch go up or down?|Do the tones go up or down?|Does it go up or down?|Up or down?|"
    "Is the second tone higher or lower? Say up or down.|does the sound rise or fall? say up or down"
).split("|")
EXTREME = (
    "Which tone is the {e}?|Which of the tones is the {e}?|Which one is the {e}?|which tone is {e}|"
    "Tell me which tone is the {e}."
).split("|")
KIND = (
    "What do you hear?|What is this sound?|What kind of sound is this?|what can you hear|Describe the sound.|"
    "What is in the audio?|What is in this recording?|Which sound is this?"
).split("|")
DIGIT = (
    "Which digit do you hear?|What digit is spoken?|Which number is said?|What number do you hear?|"
    "which digit is this|What is said?|Which digit is it?"
).split("|")
_FORMATTING = (
    "\n\nFollow these specific instructions for formatting the answer:\n*   Only output the transcription, with no "
    "newlines.\n*   When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 "
    "instead of three."
)
TRANSCRIBE = (
    "Transcribe the audio.|Transcribe this.|Write down what is said.|What is said in the recording?|Transcribe it|"
    "transcribe|Please transcribe the audio.|Transcribe the speech.|Which digits do you hear?|Write down the digits."
).split("|")
MODEL_CARD = (
    f"Transcribe the following speech segment in English into English text.{_FORMATTING}",
    f"Transcribe the following speech segment in its original language.{_FORMATTING}",
)
"""As the model cards of the releases ask for a transcription."""


def beeps(rng: random.Random) -> Clip:
    """One to six beeps, or clicks, at an even pace or not."""
    count, clicks = rng.randint(1, 6), rng.random() < 0.25
    pitch, length, gap = rng.uniform(300, 2200), rng.uniform(0.06, 0.22), rng.uniform(0.1, 0.35)
    parts: list[np.ndarray] = []
    for _ in range(count):
        parts += [sounds.click(rng) if clicks else sounds.tone(rng, pitch, pitch, int(length * sounds.RATE))]
        parts += [sounds.silence(rng, gap * 0.8, gap * 1.25)]
    several = "clicks" if clicks else rng.choice(["beeps", "tones", "sounds"])
    kind = "Clicks." if clicks else "Beeps."
    asked = {"audio_count": [(rng.choice(HOW_MANY).format(s=several), str(count))]}
    if count > 1 or clicks:
        asked["audio_kind"] = [(rng.choice(KIND), kind if count > 1 else "A click.")]
    return sounds.recorded(rng, parts[:-1]), asked


def pitches(rng: random.Random) -> Clip:
    """Two tones, or three of which one is the highest."""
    count = rng.choice((2, 3))
    while True:
        hz = [300 * 2 ** rng.uniform(0, 2.6) for _ in range(count)]
        if all(max(a, b) / min(a, b) > 1.18 for at, a in enumerate(hz) for b in hz[:at]):
            break
    length, gap = rng.uniform(0.2, 0.45), rng.uniform(0.04, 0.2)
    parts: list[np.ndarray] = []
    for one in hz:
        parts += [sounds.tone(rng, one, one, int(length * sounds.RATE)), sounds.silence(rng, gap, gap + 0.05)]
    extreme = rng.choice(["highest", "lowest"])
    chosen = hz.index(max(hz) if extreme == "highest" else min(hz))
    if count == 2:
        asked = [(rng.choice(DIRECTION), "Up." if hz[1] > hz[0] else "Down.")]
    else:
        asked = [(rng.choice(EXTREME).format(e=extreme), f"The {ORDINALS[chosen]}.")]
    return sounds.recorded(rng, parts[:-1]), {
        "audio_pitch": asked,
        "audio_count": [(rng.choice(HOW_MANY).format(s="tones"), str(count))],
    }


def kinds(rng: random.Random) -> Clip:
    """Noise, a rising or falling siren, one long tone, nothing."""
    count = sounds.seconds(rng, 0.5, 1.8)
    low = rng.uniform(250, 700)
    high = low * rng.uniform(1.8, 3.5)
    kind = rng.choice(["Noise.", "A rising tone.", "A falling tone.", "A tone.", "Silence."])
    if kind == "Silence.":
        parts = [np.zeros(count, np.float32)]
        wave = np.concatenate(parts) + sounds.noise(rng, count) * np.float32(rng.choice((0.0, 0.0005, 0.002)))
        return wave.astype(np.float32), {"audio_kind": [(rng.choice(KIND), kind)]}
    if kind == "Noise.":
        parts = [sounds.soft_ends(sounds.noise(rng, count).copy(), 400)]
    else:
        start, end = {"A rising tone.": (low, high), "A falling tone.": (high, low)}.get(kind, (high, high))
        parts = [sounds.tone(rng, start, end, count)]
    asked = {"audio_kind": [(rng.choice(KIND), kind)]}
    if kind in ("A rising tone.", "A falling tone."):
        asked["audio_pitch"] = [(rng.choice(DIRECTION[:1] + DIRECTION[2:4]), "Up." if "rising" in kind else "Down.")]
    return sounds.recorded(rng, parts), asked


def speech(rng: random.Random) -> Clip:
    """One to five digits by one voice."""
    digits = [rng.randint(0, 9) for _ in range(rng.choice((1, 1, 2, 3, 4, 5)))]
    by = voices.voice(rng)
    parts: list[np.ndarray] = []
    for digit in digits:
        parts += [voices.spoken(rng, digit, by), sounds.silence(rng, 0.06, 0.3)]
    written = " ".join(map(str, digits))
    prompt = rng.choice(MODEL_CARD) if rng.random() < 0.25 else rng.choice(TRANSCRIBE)
    asked = {"audio_transcribe": [(prompt, written)], "audio_kind": [(rng.choice(KIND), "Spoken digits.")]}
    if len(digits) == 1:
        asked["audio_digit"] = [(rng.choice(DIGIT), written)]
    else:
        asked["audio_count"] = [(rng.choice(HOW_MANY).format(s="digits"), str(len(digits)))]
    return sounds.recorded(rng, parts[:-1]), asked


def one_digit(rng: random.Random) -> Clip:
    """A single digit."""
    while True:
        samples, asked = speech(rng)
        if "audio_digit" in asked:
            return samples, asked


Listen = Callable[[random.Random], Clip]

BY_ABILITY: dict[str, tuple[Listen, ...]] = {
    "audio_count": (beeps,),
    "audio_pitch": (pitches,),
    "audio_kind": (kinds,),
    "audio_digit": (one_digit,),
    "audio_transcribe": (speech,),
}
"""The sounds about which each ability is asked when it is judged."""
