"""Cutting texts and placing words: `rtnb.simulator.speech`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import RATE_HZ
from rtnb.simulator.speech import align, join, portions, sentences, stretch, tokens


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert "".join(sentences(text)) == text
    assert "".join(portions(text, max_chars=20)) == text
    assert all(len(portion) <= 20 for portion in portions(text, max_chars=20))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hello! How can I help you today?", ["Hello", "!", " How", " can", " I", " help", " you", " today", "?"]),
        ("It's 3.5 km, well-known.", ["It's", " 3.5", " km", ",", " well-known", "."]),
        ("你好 world。", ["你", "好", " world", "。"]),
        ("مرحبا، بك", ["مرحبا", "،", " بك"]),
        ("नमस्ते दुनिया।", ["नमस्ते", " दुनिया", "।"]),
        ("end. ", ["end", ". "]),
        ("  ", ["  "]),
        ("", []),
    ],
)
def test_tokens_are_words_with_their_space_and_single_punctuation(text: str, expected: list[str]) -> None:
    assert list(tokens(text)) == expected


def test_white_space_goes_to_the_next_sentence() -> None:
    assert sentences('He said "Go!" Then 3.5 left. 好。是') == ('He said "Go!"', " Then 3.5 left.", " 好。", "是")


def test_portions_keep_sentences_whole_where_they_fit() -> None:
    assert portions("One two. Three four. Five.", max_chars=21) == ("One two. Three four.", " Five.")
    assert portions("aaaa bbbb cccc", max_chars=10) == ("aaaa bbbb", " cccc")


def tone(ms: int) -> np.ndarray:
    return (0.5 * np.sin(np.arange(ms * 24) / 10)).astype(np.float32)


def test_marks_place_words_and_the_pause_belongs_to_the_punctuation() -> None:
    audio = np.concatenate([tone(400), np.zeros(200 * 24, np.float32), tone(400)])
    words = align("One. Two", audio, marks=[(0, 0.0), (5, 600.0)]).words
    assert [word.text for word in words] == ["One", ".", " Two"]
    assert words[0].start_ms == 0
    assert words[0].stop_ms == pytest.approx(400, abs=3)
    assert (words[1].start_ms, words[1].stop_ms) == (words[0].stop_ms, 600)
    assert (words[2].start_ms, words[2].stop_ms) == (600, 1000)


def test_words_without_marks_share_the_time_by_letters() -> None:
    words = align("a bbb", tone(400), marks=[]).words
    assert [(word.start_ms, word.stop_ms) for word in words] == [(0, 100), (100, 400)]


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 80), st.floats(0, 3000)), max_size=12))
def test_words_never_run_backwards_whatever_the_marks(text: str, marks: list[tuple[int, float]]) -> None:
    speech = align(text, tone(1000), marks=marks)
    assert speech.text == text
    times = [time for word in speech.words for time in (word.start_ms, word.stop_ms)]
    assert all(0 <= time <= 1000 for time in times)
    assert all(word.start_ms <= word.stop_ms for word in speech.words)
    starts = [word.start_ms for word in speech.words]
    assert starts == sorted(starts)


def test_join_shifts_the_words_of_what_follows() -> None:
    one, two = align("One.", tone(300), marks=[]), align(" Two.", tone(500), marks=[])
    both = join([one, two])
    assert both.text == "One. Two."
    assert both.duration_ms == 800
    assert both.words[2].start_ms == 300
    assert len(join([]).audio) == 0
    assert not both.audio.flags.writeable


@pytest.mark.parametrize("factor", [1.1, 1.83])
def test_stretch_changes_the_length_and_not_the_pitch(factor: float) -> None:
    tone_hz = 200
    audio = np.sin(2 * np.pi * tone_hz * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    longer = stretch(audio, factor=factor)
    assert len(longer) == round(factor * RATE_HZ)
    spectrum = np.abs(np.fft.rfft(longer * np.hanning(len(longer))))
    assert np.argmax(spectrum) * RATE_HZ / len(longer) == pytest.approx(tone_hz, abs=2)
    level = np.sqrt(np.mean(longer[2000:-2000] ** 2))
    assert level == pytest.approx(np.sqrt(0.5), rel=0.05)
    assert len(stretch(np.zeros(0, np.float32), factor=2)) == 0
