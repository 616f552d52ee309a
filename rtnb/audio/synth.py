"""Synthetic voice without meaning that sounds like speech, so that a simulated reply has audio without a model.

`babble` turns letters into sounds. Pulses at the pitch of the voice, and noise for hissing consonants, are filtered by
the formants of each sound; the pitch falls along a sentence and rises at a question mark. It has no meaning, but a
voice activity detector finds speech, words have times, and length follows the text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from rtnb.audio.samples import Audio, check_rate
from rtnb.errors import AudioError

_Float = npt.NDArray[np.float64]

# Pitch (Hz) and formant shift (1 = a male vocal tract, higher = shorter) of the voices that the service names. Chosen:
# only that they differ matters. Any other name gets its own from a checksum.
_VOICES = {
    "alloy": (155.0, 1.06),
    "ash": (112.0, 0.98),
    "ballad": (128.0, 1.02),
    "cedar": (100.0, 0.95),
    "coral": (190.0, 1.14),
    "echo": (120.0, 1.0),
    "marin": (180.0, 1.12),
    "sage": (172.0, 1.1),
    "shimmer": (200.0, 1.16),
    "verse": (140.0, 1.04),
}


class _Sound(NamedTuple):
    """Kind of sound: one letter, or a pause."""

    formants_hz: tuple[int, int, int]
    length_ms: float
    voicing: float  # level of the pulses
    hiss: float  # level of the noise


# Formants of vowels: Peterson and Barney (1952), men; everything else is chosen by ear.
_VOWELS = {
    "a": _Sound((730, 1090, 2440), 120, 1.0, 0.0),
    "e": _Sound((530, 1840, 2480), 120, 1.0, 0.0),
    "i": _Sound((270, 2290, 3010), 120, 1.0, 0.0),
    "o": _Sound((570, 840, 2410), 120, 1.0, 0.0),
    "u": _Sound((300, 870, 2240), 120, 1.0, 0.0),
}
_HISSING = _Sound((1800, 4300, 5200), 55, 0.1, 0.35)
_BURSTING = _Sound((300, 1500, 3500), 35, 0.15, 0.12)
_HUMMING = _Sound((280, 1100, 2200), 45, 0.55, 0.0)
_SOUNDS = _VOWELS | {"y": _VOWELS["i"]} | dict.fromkeys("cfhjsvxz", _HISSING) | dict.fromkeys("bdgkpqt", _BURSTING)
_PAUSES_MS = {
    ",": 160,
    ";": 200,
    ":": 200,
    "-": 80,
    "–": 160,
    "—": 160,
    ".": 380,
    "!": 380,
    "?": 380,
    "…": 500,
}  # chosen
_FOURTH_HZ = 3500
_BANDWIDTHS_HZ = np.array([70.0, 100.0, 140.0, 220.0])
_LEVELS = np.array([1.0, 0.55, 0.3, 0.15])
_EDGE_S = 0.012  # chosen: how long one sound takes to become the next
_SPREAD_S = 0.006  # at 4 kHz; chosen
_PEAK = 0.5  # chosen: -6 dB below full scale
# A word is what stands between spaces; of scripts that write none, one character with the punctuation after it.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af][^\w\s]*|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


@dataclass(frozen=True)
class Word:
    """Word of an utterance with its start and end."""

    text: str
    """As written, punctuation included."""
    start_ms: int
    """From the start of the utterance."""
    stop_ms: int
    """End of its sound; a pause for punctuation comes after it."""


@dataclass(frozen=True)
class Utterance:
    """Result of `babble`: audio, and words with their times."""

    audio: Audio
    """float32, shape (n_samples,)."""
    words: tuple[Word, ...]
    """In their order, with their times."""
    rate_hz: int
    """Of the audio."""

    def __repr__(self) -> str:
        return f"Utterance({len(self.words)} words, {len(self.audio) / self.rate_hz:.2f} s at {self.rate_hz} Hz)"


@dataclass(frozen=True)
class _Placed:
    """Sound at its time."""

    sound: _Sound
    start_s: float
    stop_s: float
    pitch: float  # factor


def babble(
    text: str,
    *,
    rate_hz: int = 24_000,
    voice: str = "alloy",
    speed: float = 1.0,
    seed: int = 0,
) -> Utterance:
    """Speak a text in a made-up language that a voice activity detector takes for speech.

    The number of letters sets how long a word is, punctuation pauses, a question rises. The same arguments give the
    same sound.

    Parameters
    ----------
    text : str
        Any script; only Latin letters are sounded as written.
    rate_hz : int, default 24000
        Of the audio, at least 8,000 Hz.
    voice : str, default "alloy"
        A name of the service's voices, or any other; sets pitch and formants.
    speed : float, default 1.0
        0.25 to 4: higher is faster, at the same pitch. 1 is about five syllables a second.
    seed : int, default 0
        Of the small irregularities of pitch, length and noise.

    Returns
    -------
    utterance : Utterance
        Audio with a peak of 0.5, and the words with their times.

    Raises
    ------
    AudioError
        A number outside its range.

    Examples
    --------
    >>> utterance = babble("Hello there, world.", seed=1)
    >>> [word.text for word in utterance.words]
    ['Hello', 'there,', 'world.']
    """
    rate = check_rate(rate_hz, lowest=8_000)
    place = crc32(voice.encode()) % 1000 / 1000
    pitch_hz, shift = _VOICES.get(voice) or (100 + 100 * place, 0.95 + 0.21 * place)
    if not 0.25 <= speed <= 4:
        raise AudioError(f"speed is {speed!r}: allowed are 0.25 to 4")
    random = np.random.default_rng(seed)
    words, placed = _place(text, speed, random)
    if not placed:
        return Utterance(np.zeros(0, np.float32), words, rate)
    audio = _filtered(_excitation(placed, rate, pitch_hz, random), placed, rate, shift)
    peak = np.abs(audio).max(initial=0)
    return Utterance((audio * (_PEAK / peak if peak else 0.0)).astype(np.float32), words, rate)


def _place(text: str, speed: float, random: np.random.Generator) -> tuple[tuple[Word, ...], list[_Placed]]:
    """Return the words and their sounds, pauses included, with their times."""
    words: list[Word] = []
    placed: list[_Placed] = []
    now_s = fall = 0.0
    for written in _WORD.findall(text):
        pause_ms = max(_PAUSES_MS.get(mark, 0) for mark in written[-3:])
        sounds, start_s = _sounds(written), now_s
        for index, sound in enumerate(sounds):
            ending = pause_ms > 0 and index >= len(sounds) - 2
            rise = 1.35 if ending and "?" in written else 1.0
            stretch = random.uniform(0.9, 1.1) * (1.4 if ending else 1.0) / speed
            placed.append(_Placed(sound, now_s, now_s + sound.length_ms / 1000 * stretch, (1.15 - fall) * rise))
            now_s = placed[-1].stop_s
            fall = min(0.33, fall + sound.voicing * 0.02)  # the pitch falls along a phrase
        now_s = round(now_s, 3)  # words and pauses end at whole milliseconds
        words.append(Word(written, round(start_s * 1000), round(now_s * 1000)))
        if pause_ms:
            silence = _Sound(_HUMMING.formants_hz, pause_ms, 0.0, 0.0)
            placed.append(_Placed(silence, now_s, round(now_s + pause_ms / 1000 / speed, 3), 1.0))
            now_s, fall = placed[-1].stop_s, 0.0
    return tuple(words), placed


def _sounds(written: str) -> list[_Sound]:
    """Return the sounds of a word: one for each Latin letter, a syllable for any other letter or digit."""
    sounds: list[_Sound] = []
    for character in written.lower():
        letter = unicodedata.normalize("NFKD", character)[0]
        if "a" <= letter <= "z":
            sound = _SOUNDS.get(letter, _HUMMING)
            if sounds and sounds[-1].voicing == sound.voicing == 1.0:  # two vowels make one, gliding
                sounds[-1], sound = (one._replace(length_ms=75) for one in (sounds[-1], sound))
            sounds.append(sound)
        elif letter.isalnum():
            sounds += [(_HUMMING, _BURSTING, _HISSING)[ord(letter) % 3], _VOWELS["aeiou"[ord(letter) % 5]]]
    return sounds


def _excitation(placed: list[_Placed], rate: int, pitch_hz: float, random: np.random.Generator) -> _Float:
    """Return pulses at the pitch and noise, each at the level of its moment; the levels slope between sounds."""
    times_s = np.arange(round(round(placed[-1].stop_s, 3) * rate)) / rate
    edges_s = [min(_EDGE_S, (one.stop_s - one.start_s) / 3) for one in placed]
    borders_s = [(one.start_s + edge, one.stop_s - edge) for one, edge in zip(placed, edges_s, strict=True)]
    voicing, hiss, pitch = (
        np.interp(times_s, np.ravel(borders_s), np.repeat(levels, 2), left=0.0)
        for levels in zip(*((one.sound.voicing, one.sound.hiss, one.pitch) for one in placed), strict=True)
    )
    wobble = random.normal(
        1, 0.012, len(times_s) * 200 // rate + 1
    )  # 200 times a second: about that of a healthy voice
    wobble = np.repeat(wobble, rate // 200 + 1)
    cycles = np.cumsum(np.maximum(pitch, 0.5) * pitch_hz / rate * wobble[: len(times_s)])
    pulses = np.diff(np.floor(cycles), prepend=0.0) * np.sqrt(rate / pitch_hz)
    excitation: _Float = voicing * pulses + hiss * random.standard_normal(len(times_s))
    return excitation


def _filtered(excitation: _Float, placed: list[_Placed], rate: int, shift: float) -> _Float:
    """Apply the formants, which move from the middle of each sound to that of the next, frame by frame."""
    size = 2 ** round(np.log2(rate / 48))  # about 20 ms, four frames at a time
    hop = size // 4
    window = np.sqrt(np.hanning(size + 1)[:-1])
    padded = np.pad(excitation, (size, 2 * size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    middles_s = [(one.start_s + one.stop_s) / 2 for one in placed]
    centres_s = (np.arange(len(frames)) * hop - size / 2) / rate
    hz = np.fft.rfftfreq(size, 1 / rate)
    gains = np.zeros((len(frames), len(hz)))
    formants = zip(*((*one.sound.formants_hz, _FOURTH_HZ) for one in placed), strict=True)
    for of_placed, width_hz, level in zip(formants, _BANDWIDTHS_HZ, _LEVELS, strict=True):
        centre_hz = np.interp(centres_s, middles_s, of_placed) * shift
        gains += level / (1 + ((hz - centre_hz[:, None]) / width_hz) ** 2)
    spread = np.exp(-1j * np.pi * _SPREAD_S / 4000 * hz**2)  # high tones come later: no pulse is a lone peak
    pieces = np.fft.irfft(np.fft.rfft(frames) * spread * gains, size) * window / 2
    audio = np.zeros(len(frames) * hop + size)
    for index, piece in enumerate(pieces):
        audio[index * hop : index * hop + size] += piece
    filtered: _Float = audio[size : size + len(excitation)]
    return filtered
