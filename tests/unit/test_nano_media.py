"""The pictures and sounds of nano: what is asked has the stated answer, and rows hold what the encoders need."""

import random
from pathlib import Path

import numpy as np
import pytest

from g4jax.config import Gemma4Config
from g4jax.media.mel import log_mel
from g4jax.media.processor import MediaProcessor
from scripts.nano import figures, hearing, pictures, rendering, seeing, senses, shape, sounds, voices, watching
from scripts.nano.media_rows import CLIP_TOKENS, IMAGE_TOKENS, Filler, MediaEncoder, Size, media_rows, medium, turns

NANO = Path(__file__).parents[2] / "g4jax" / "assets" / "nano"
SIZE = Size(rows=3, length=512, images=4, clips=6)


@pytest.fixture(scope="module")
def encoder() -> MediaEncoder:
    return MediaEncoder(NANO)


def test_a_figure_has_its_colour_where_it_stands():
    rng = random.Random(1)
    for outline in figures.SHAPES:
        for colour, rgb in pictures.COLOURS.items():
            on = pictures.Canvas(200, 150, (128, 128, 128))
            image = pictures.drawn(rng, on, [pictures.Figure(outline, colour, 0.3, 0.6, 0.2)])
            pixels = np.asarray(image).astype(int)
            near = np.abs(pixels - np.asarray(rgb)).sum(-1) < 90
            assert near.mean() > 0.01, (outline, colour)
            rows, columns = np.nonzero(near)
            assert abs(columns.mean() - 60) < 8 and abs(rows.mean() - 90) < 8, (outline, colour)


def test_figures_are_told_from_their_background():
    rng = random.Random(2)
    for _ in range(300):
        colours = rng.sample(list(pictures.COLOURS), 3)
        background = pictures.canvas(rng, colours).background
        for colour in colours:
            distance = np.linalg.norm(np.subtract(background, pictures.COLOURS[colour]))
            assert distance > pictures.CONTRAST - 10


def test_as_many_figures_as_the_answer_says_stand_apart():
    rng = random.Random(3)
    for _ in range(200):
        on = pictures.canvas(rng, ["red"])
        taken: list[pictures.Figure] = []
        for _ in range(6):
            if (spot := seeing._free_spot(rng, on, taken)) is not None:
                taken.append(pictures.Figure("circle", "red", *spot))
        for at, one in enumerate(taken):
            for other in taken[:at]:
                assert seeing._gap(on, one.x, one.y, other) > one.radius + other.radius


def test_a_moving_figure_moves_as_the_answer_says():
    rng = random.Random(13)
    for _ in range(40):
        figures, asked = watching._moving(rng, pictures.Figure("star", "red", 0.5, 0.5, 0.15), "blue")
        across, down = watching.WAYS[asked[1][1].rstrip(".").lower()]
        assert (figures[-1].x - figures[0].x) * across + (figures[-1].y - figures[0].y) * down > 0.4


def test_a_number_is_printed_within_its_picture():
    rng = random.Random(4)
    for _ in range(100):
        image, answers = seeing.number(rng)
        ((_, answer),) = answers["image_number"]
        assert 0 <= int(answer) <= 99
        assert np.asarray(image).std() > 10


def test_beeps_are_as_many_as_the_answer_says():
    rng = random.Random(5)
    for _ in range(60):
        samples, answers = hearing.beeps(rng)
        loud = (
            np.abs(samples).reshape(-1)[: len(samples) // 80 * 80].reshape(-1, 80).max(1) > 0.35 * np.abs(samples).max()
        )
        gaps = np.diff(np.nonzero(loud)[0])
        assert str(1 + int((gaps > 8).sum())) == answers["audio_count"][0][1]


def test_a_rising_tone_rises():
    rng = random.Random(6)
    wave = sounds.tone(rng, 300, 900, 16_000)
    early, late = (np.abs(np.fft.rfft(part)).argmax() for part in (wave[1000:3000], wave[-3000:-1000]))
    assert late > 1.8 * early


def test_every_digit_sounds_like_itself_and_like_no_other():
    rng = random.Random(7)

    def heard(digit: int) -> np.ndarray:
        frames = log_mel(voices.spoken(rng, digit, voices.voice(rng)))
        places = np.linspace(0, len(frames) - 1, 12).astype(int)
        frames = frames[places].reshape(12, 16, 8).mean(-1)
        return (frames - frames.mean()).ravel()

    known = [(digit, heard(digit)) for digit in range(10) for _ in range(12)]
    right = 0
    for digit in range(10):
        for _ in range(6):
            new = heard(digit)
            nearest = min(known, key=lambda pair: float(np.square(pair[1] - new).sum()))
            right += nearest[0] == digit
    assert right >= 42  # of 60 by the nearest neighbour alone; chance is 6


@pytest.mark.parametrize("ability", senses.JUDGED)
def test_a_sample_has_one_question_and_its_media(ability, encoder):
    rng = random.Random(8)
    for _ in range(10):
        sample = senses.sample(rng, ability)
        assert sample.ability == ability
        count = len(list(senses.media_parts(sample.messages)))
        assert count == (2 if ability == "image_two" else 1)
        inputs = shape.VIDEO_FRAMES if ability == "video" else count
        encoded = encoder(sample)
        assert [piece.kind for _, piece in encoded.fills] == [ability.split("_")[0]] * inputs
        prompt = rendering.prompt(sample, encoder.template)
        written = encoder.tokenizer.decode(
            [token for token, mine in zip(encoded.tokens, encoded.replies, strict=True) if mine],
            skip_special_tokens=False,
        )
        assert rendering.is_right(sample, prompt, written)


def test_all_answers_of_a_conversation_are_learned(encoder):
    rng = random.Random(9)
    most = 0
    for _ in range(60):
        sample = rng.choice([senses.any_image_sample, senses.any_audio_sample])(rng, {})
        said = [reply for _, reply in turns(sample, encoder.template)]
        earlier = [message["content"] for message in sample.messages if message["role"] == "assistant"]
        assert said[:-1] == [f"{answer}<turn|>" for answer in earlier]
        whole = "".join(prompt + reply for prompt, reply in turns(sample, encoder.template))
        assert whole.startswith(rendering.prompt(sample, encoder.template))
        most = max(most, len(said))
    assert most >= 4


def test_training_sees_and_hears_what_a_server_would(encoder):
    rng = random.Random(12)
    processor = MediaProcessor.from_folder(NANO, Gemma4Config.from_dict(shape.config()))
    for _ in range(6):
        (seen,) = senses.media_parts(senses.sample(rng, "image_count").messages)
        (heard,) = senses.media_parts(senses.sample(rng, "audio_digit").messages)
        pairs = [(medium(seen), processor.image(seen["image"], shape.IMAGE_TOKENS))]
        pairs += [(medium(heard), processor.audio(heard["audio"]))]
        for mine, served in pairs:
            np.testing.assert_array_equal(mine.inputs[0].data, served.inputs[0].data)
            assert mine.inputs[0].grid == served.inputs[0].grid
            assert mine.inputs[0].num_tokens == served.inputs[0].num_tokens


def test_a_batch_leads_from_every_place_to_its_embedding(encoder):
    batch = next(media_rows(encoder, 10, SIZE, dict))
    assert set(batch.tokens[batch.source > 0]) == {0}
    assert not batch.replies[batch.source > 0].any()
    first_sound = 1 + SIZE.images * IMAGE_TOKENS
    for index, (rows, columns) in enumerate(batch.grids):
        mine = batch.source[(batch.source > index * IMAGE_TOKENS) & (batch.source <= (index + 1) * IMAGE_TOKENS)]
        assert mine.tolist() == list(range(1 + index * IMAGE_TOKENS, 1 + index * IMAGE_TOKENS + rows * columns))
        assert batch.pixels[index, : rows * columns * 9].any() == (rows > 0)
        assert not batch.pixels[index, rows * columns * 9 :].any()
    for index, length in enumerate(batch.lengths):
        start = first_sound + index * CLIP_TOKENS
        mine = batch.source[(batch.source >= start) & (batch.source < start + CLIP_TOKENS)]
        assert mine.tolist() == list(range(start, start + -(-length // 4)))
    assert (batch.grids[:, 0] > 0).any() and (batch.lengths > 0).any()


def test_a_batch_takes_no_more_than_it_has_room_for(encoder):
    rng = random.Random(11)
    filler = Filler(Size(rows=2, length=512, images=1, clips=0))
    one = encoder(senses.sample(rng, "image_colour"))
    assert filler.add(one) == (0, 0)
    assert filler.add(one) is None
    assert filler.add(encoder(senses.sample(rng, "audio_digit"))) is None


def test_what_is_known_is_drawn_less():
    rng = random.Random(14)
    known = dict.fromkeys(senses.JUDGED, 0.99) | {"image_number": 0.6}
    drawn = [senses._any(rng, senses.SEEN, known) for _ in range(200)]
    asked = [
        [part["text"] for part in sample.messages[-1]["content"] if part["type"] == "text"]
        for sample in drawn
        if len(sample.messages) == 1
    ]
    numbers = sum(question in seeing.NUMBER for (question,) in asked)
    assert numbers > len(asked) / 4
    assert senses.need(0.5) == senses.need(0.75) > 4 * senses.need(0.97) > 4 * senses.need(1.0) > 0


def test_every_ability_has_a_kind_of_conversation_that_teaches_it():
    taught = {name for kind in (*senses.SEEN, *senses.HEARD) for name in kind.abilities}
    assert taught == set(senses.JUDGED)
