"""Recordings, their labels and conditions, and turns to practise on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.analysis import Gain, MuLaw, Noise, Recording, Turn, from_segments, read_labels
from rtnb.analysis.conditions import NOMINAL_SPEECH_DBFS
from rtnb.analysis.recordings import PAUSE_MS, distant_talk, segments_by_level, thinking_aloud
from rtnb.analysis.sweeping import sweep
from rtnb.audio import babble, write_wav
from rtnb.errors import AudioError

SECOND = np.zeros(16_000, np.float32)
WORDS = [(100.0, 400.0), (450.0, 500.0), (700.0, 900.0)]

# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_turn_with_its_pauses() -> None:
    (turn,) = from_segments(SECOND, [(*span, "word") for span in WORDS], rate_hz=16_000).turns
    assert turn == Turn(100, 900, ((500, 700),))  # 50 ms are no pause


def test_a_long_silence_separates_turns_and_overlaps_are_joined() -> None:
    overlapping = [*reversed(WORDS), (350, 480)]
    recording = from_segments(SECOND, overlapping, rate_hz=16_000, turn_gap_ms=200)
    assert recording.turns == (Turn(100, 500), Turn(700, 900))


def test_what_is_far_from_turns_and_echo_is_non_speech() -> None:
    audio = np.zeros(48_000, np.float32)
    recording = Recording(audio, rate_hz=16_000, turns=[(1000, 1100)], echo=[(2000, 2200)])
    assert recording.non_speech == ((0, 750), (1350, 1750), (2450, 3000))
    assert Recording.of_room_tone(audio, rate_hz=16_000).non_speech == ((0, 3000),)
    playback = Recording(audio, rate_hz=16_000, echo=[(0, 3000)])
    assert (playback.echo, playback.non_speech) == (((0, 3000),), ())


def test_padding_moves_all_labels_and_adds_the_rooms_noise() -> None:
    random = np.random.default_rng(1)
    audio = (0.01 * random.standard_normal(32_000)).astype(np.float32)
    recording = Recording(audio, rate_hz=16_000, turns=[Turn(500, 1500, ((700, 900),))])
    padded = recording.padded(lead_ms=100, tail_ms=1000)
    assert padded.turns == (Turn(600, 1600, ((800, 1000),)),)
    assert padded.non_speech == ((0, 350), (1850, 3100))
    assert 0.008 < padded.audio[-16_000:].std() < 0.01
    assert np.array_equal(padded.audio, recording.padded(lead_ms=100, tail_ms=1000).audio)
    assert np.array_equal(padded.audio[1600:-16_000], audio)


WRONG_LABELS = [
    ({"turns": [(500, 400)]}, "must end after its start"),
    ({"turns": [(0, 1040)]}, "ends at 1040 ms, the audio at 1000 ms"),
    ({"turns": [(0, 300), (200, 400)]}, "begins at 200 ms, the one before ends at 300 ms"),
    ({"turns": [Turn(0, 9)], "non_speech": [(500, 1500)]}, "non_speech from 500.0 to 1500.0 ms"),
    ({"rate_hz": 0}, "rate_hz is 0"),
]


@pytest.mark.parametrize("wrong, says", WRONG_LABELS)
def test_labels_are_checked(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(AudioError, match=says):
        Recording(SECOND, **{"rate_hz": 16_000, **wrong})


@pytest.mark.parametrize("pauses", [((0, 50),), ((150, 450),), ((300, 200),), ((200, 300), (250, 350))])
def test_pauses_lie_in_their_turn_in_order(pauses: Any) -> None:
    with pytest.raises(AudioError, match="its turn lasts from 100 to 400 ms"):
        Turn(100, 400, pauses)


# --- files ------------------------------------------------------------------------------------------------------------

# Line ends and indents mean nothing in a TextGrid.
LONG_TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0 xmax = 1 tiers? <exists> size = 2 item []:
    item [1]: class = "TextTier" name = "clicks" xmin = 0 xmax = 1
        points: size = 1
        points [1]: number = 0.5 mark = "!"
    item [2]: class = "IntervalTier" name = "phrases" xmin = 0 xmax = 1
        intervals: size = 3
        intervals [1]: xmin = 0 xmax = 0.1 text = ""
        intervals [2]: xmin = 0.1 xmax = 0.4 text = "he said ""one 2"""
        intervals [3]: xmin = 0.4 xmax = 1 text = "sil"
'''
SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0 1 <exists> 1 "IntervalTier" "words" 0 1 2 0.1 0.4 "so" 0.4 1 ""
""".replace(" ", "\n")


LABEL_FILES = [
    ("a.TextGrid", LONG_TEXTGRID, [(100, 400, 'he said "one 2"')]),
    ("a.TextGrid", SHORT_TEXTGRID, [(100, 400, "so")]),
    ("a.txt", "0.1\t0.4\tso\n\\\t100\t200\n0.5\t0.5\tpoint\n", [(100, 400, "so")]),
    ("a.json", '[[0.1, 0.4, "so"], {"start": 0.5, "end": 0.6}]', [(100, 400, "so"), (500, 600, "")]),
]


@pytest.mark.parametrize("name, text, expected", LABEL_FILES)
def test_label_files(tmp_path: Path, name: str, text: str, expected: list[Any]) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / name).write_text(text, encoding=encoding)
        found = read_labels(tmp_path / name)
        assert [(round(a, 6), round(b, 6), label) for a, b, label in found] == expected


NO_LABEL_FILES = [
    ("a.TextGrid", SHORT_TEXTGRID[:-20], "no complete TextGrid"),
    ("a.TextGrid", LONG_TEXTGRID.replace("IntervalTier", "TextTier"), "no"),
    ("a.TextGrid", SHORT_TEXTGRID, "no interval tier 'phones'; it has: words"),
    ("a.txt", "0.1\t0.4\tso\nhello\n", "line 2: expected start, end, label"),
    ("a.json", '{"a": 1}', "expected a list"),
    ("a.csv", "", "unknown kind of labels '.csv'"),
    ("a.txt", b"\xff\xfe\x00", "no text in UTF-8"),
]


@pytest.mark.parametrize("name, text, says", NO_LABEL_FILES)
def test_what_is_no_label_file_is_said(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AudioError, match=says):
        read_labels(tmp_path / name, tier="phones" if "phones" in says else None)


def test_load_finds_the_labels_beside_the_audio(tmp_path: Path) -> None:
    write_wav(tmp_path / "talk.wav", SECOND, rate_hz=16_000)
    (tmp_path / "talk.TextGrid").write_text(SHORT_TEXTGRID)
    recording = Recording.load(tmp_path / "talk.wav")
    assert (recording.name, recording.turns) == ("talk", (Turn(100, 400),))
    assert Recording.load(tmp_path / "talk.wav", labels=WORDS, turn_gap_ms=100).turns[0] == Turn(100, 500)


def test_flac_and_what_is_no_audio(shared_speech: Callable[[str], Path], tmp_path: Path) -> None:
    assert Recording.load(shared_speech("mfa_um.flac")).duration_ms > 1000
    (tmp_path / "noise.flac").write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(AudioError, match=r"^noise\.flac is no sound file that can be read"):
        Recording.load(tmp_path / "noise.flac")


# --- where it is loud -------------------------------------------------------------------------------------------------


def test_one_clip_is_one_turn_where_it_is_loud() -> None:
    spoken = babble("Well, I think so.", rate_hz=16_000)
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    audio = np.concatenate([quiet, spoken.audio + quiet[: len(spoken.audio)], quiet])
    (turn,) = Recording.of_one_turn(audio, rate_hz=16_000).turns
    assert turn.start_ms == pytest.approx(1500 + spoken.words[0].start_ms, abs=60)
    assert turn.end_ms == pytest.approx(1500 + spoken.words[-1].stop_ms, abs=60)
    with pytest.raises(AudioError, match="no speech stands out"):
        Recording.of_one_turn(quiet, rate_hz=16_000)


@pytest.mark.parametrize("name", ["acoustic_corpus.wav", "cold_corpus.wav"])
def test_the_level_finds_the_ends_of_real_monologues(shared_speech: Callable[[str], Path], name: str) -> None:
    recording = Recording.load(shared_speech(name), labels=shared_speech(name).with_suffix(".TextGrid"))
    segments = segments_by_level(recording.audio, rate_hz=recording.rate_hz)
    assert segments[-1].end_ms == pytest.approx(recording.turns[-1].end_ms, abs=30)


# --- turns to practise on ---------------------------------------------------------------------------------------------

PHRASES = [babble(text, seed=k).audio for k, text in enumerate(("well", "let me see", "a table for two", "on Friday"))]


def test_the_pauses_are_those_of_people_and_the_labels_are_exact() -> None:
    turns = thinking_aloud(PHRASES, rate_hz=24_000, n_turns=200, pauses=2)
    lengths = [end - start for one in turns for start, end in one.turns[0].pauses]
    assert np.median(lengths) == pytest.approx(PAUSE_MS[0], rel=0.15)
    assert np.quantile(lengths, 0.9) == pytest.approx(PAUSE_MS[1], rel=0.2)
    for one in turns[:10]:
        (turn,) = one.turns
        loud = np.flatnonzero(np.abs(one.audio) > max(0.004, 0.02 * np.abs(one.audio).max())) / 24
        assert loud[[0, -1]] == pytest.approx([turn.start_ms, turn.end_ms], abs=20)
        for start, end in turn.pauses:
            assert np.abs(one.audio[int(start * 24) + 24 : int(end * 24) - 24]).max() < 0.005


def test_same_seed_same_turns() -> None:
    one, again = (thinking_aloud(PHRASES, rate_hz=24_000, n_turns=2, seed=5)[1] for _ in range(2))
    assert (one.audio == again.audio).all()
    for phrases, says in (([], "no phrases"), ([np.zeros(100)], "silent")):
        with pytest.raises(AudioError, match=says):
            thinking_aloud(phrases, rate_hz=24_000)


def test_turn_detection_hears_the_turns_and_is_fooled_by_the_room() -> None:
    turns = thinking_aloud(PHRASES, rate_hz=24_000, n_turns=6)
    room = distant_talk(PHRASES, rate_hz=24_000, length_s=30)
    found = sweep([*turns, room], thresholds=[0.3, 0.5], cache=False, progress=False)
    assert not found.missed.any()
    assert found.grid("no_fire_rate").loc[0.5, 224] == 0
    assert found.grid("cut_off_rate").loc[0.5, 224] > 0
    assert found.grid("false_triggers_per_h").loc[0.3, 224] > 0


# --- conditions -------------------------------------------------------------------------------------------------------


RATE = 16_000
SPOKEN = babble("Hello, is this on? Well, then.", rate_hz=RATE).audio
QUIET = np.zeros(RATE, np.float32)
END_MS = 1000 + len(SPOKEN) / 16
TALK = Recording(
    np.concatenate([QUIET, 0.3 * SPOKEN, QUIET]), rate_hz=RATE, turns=[Turn(1000, END_MS, ((1200, 1300),))]
)
TONE = Recording(0.1 * np.sin(np.arange(3 * RATE) / 7), rate_hz=RATE, name="hum")


def power_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def speech(recording: Recording) -> np.ndarray:
    audio = recording.audio
    return np.concatenate([audio[RATE : RATE * 12 // 10], audio[RATE * 13 // 10 : RATE + len(SPOKEN)]])


ALL = [Gain(-12), Noise(10), Noise(0, noise=TONE), MuLaw()]


@pytest.mark.parametrize("condition", ALL, ids=lambda one: one.name)
def test_the_same_utterances_the_same_labels_the_same_sound_again(condition: Gain) -> None:
    changed = condition.apply(TALK)
    assert changed.turns == TALK.turns
    assert changed.name == TALK.name
    assert changed.duration_ms == pytest.approx(TALK.duration_ms, abs=0.2)
    assert np.array_equal(changed.audio, condition.apply(TALK).audio)
    assert not np.array_equal(changed.audio, TALK.audio)
    assert np.abs(changed.audio).max() <= 1


def test_gain() -> None:
    assert power_db(Gain(-12).apply(TALK).audio) == pytest.approx(power_db(TALK.audio) - 12, abs=0.01)
    assert np.abs(Gain(60).apply(TALK).audio).max() == 1
    assert Gain(-12).name == "gain -12 dB"


@pytest.mark.parametrize("noise", [None, TONE])
def test_noise_has_the_ratio_to_the_speech_without_its_pauses(noise: Recording | None) -> None:
    added = Noise(10, noise=noise).apply(TALK).audio - TALK.audio
    assert power_db(speech(TALK)) - power_db(added) == pytest.approx(10, abs=0.2)
    room = Recording.of_room_tone(QUIET, rate_hz=RATE)
    assert power_db(Noise(10, noise=noise).apply(room).audio) == pytest.approx(NOMINAL_SPEECH_DBFS - 10, abs=0.2)


def test_noise_at_another_rate_keeps_its_pitch() -> None:
    low = Recording(np.sin(2 * np.pi * 1000 * np.arange(8_000) / 8_000), rate_hz=8_000, name="whistle")
    added = Noise(0, noise=low).apply(TALK).audio - TALK.audio
    assert np.argmax(np.abs(np.fft.rfft(added[:RATE]))) == pytest.approx(1000, abs=2)


def test_a_telephone_line() -> None:
    changed = MuLaw().apply(TALK)
    assert changed.rate_hz == 8_000
    assert len(np.unique(changed.audio)) <= 256


WRONG_CONDITIONS = [
    (lambda: Gain(float("nan")), "db is nan"),
    (lambda: Noise(0, noise=Recording(QUIET, rate_hz=RATE, name="nothing")), "'nothing' is silent"),
]


@pytest.mark.parametrize("make, says", WRONG_CONDITIONS)
def test_conditions_are_checked(make: type, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        make()
