"""Synthetic voice without meaning that sounds like speech, so that a simulated reply has audio without a model.

`babble` turns text into syllables and these into sound: a train of glottal pulses, each one a sum of decaying formants
(as in FOF synthesis), noise for the hissing consonants, a pitch that falls along a sentence and rises at a question
mark. It has no meaning, but a voice activity detector finds speech, words have times, and length follows the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from rtnb.audio.samples import Audio, check_rate
from rtnb.errors import AudioError

_Float = npt.NDArray[np.float64]

# Voices that the service names, from low and long to high and short. Any other name gets its own place by a checksum.
_VOICES = ("cedar", "ash", "echo", "ballad", "verse", "alloy", "sage", "marin", "coral", "shimmer")
# First three formants in Hz: Peterson and Barney (1952), men; consonants and the bandwidths are chosen by ear.
_FORMANTS_HZ = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "nasal": (280, 1100, 2200),
}
_FOURTH_HZ = 3500
_BANDWIDTHS_HZ = np.array([70.0, 100.0, 140.0, 220.0])
_LEVELS = np.array([1.0, 0.55, 0.3, 0.15])
_VOWELS = "aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ"
_VOWEL_OF = dict(zip(_VOWELS, "aeiouiaaaaaaaeeeeiiiioooooouuuuio", strict=True))
_HISSING, _BURSTING = "cfhjsvxzßç", "bdgkpqt"
_PAUSES_MS = dict.fromkeys(",–—", 160) | dict.fromkeys(";:", 200) | dict.fromkeys(".!?", 380) | {"-": 80, "…": 500}
"""Chosen."""
_GRAIN_S = 0.022  # chosen: a formant of 70 Hz bandwidth has decayed by 42 dB then
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


class _Phone(NamedTuple):
    """A stretch of one sound."""

    start_s: float
    stop_s: float
    formants: str  # key of _FORMANTS_HZ
    voicing: float  # level of the pulses
    hiss: float  # level of the noise
    pitch: float  # factor


def babble(text: str, *, rate_hz: int = 24_000, voice: str = "alloy", speed: float = 1.0, seed: int = 0) -> Utterance:
    """Speak a text in a made-up language that a voice activity detector takes for speech.

    The number of syllables sets how long a word is, punctuation pauses, a question rises. The same arguments give the
    same sound.

    Parameters
    ----------
    text : str
        Any script; only Latin vowels are sounded as written.
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
    place = _VOICES.index(voice) if voice in _VOICES else crc32(voice.encode()) % 900 / 100
    pitch_hz, shift = (
        100 + 11 * place,
        0.95 + 0.022 * place,
    )  # chosen: only that voices differ matters; 1 is a man's tract
    if not 0.25 <= speed <= 4:
        raise AudioError(f"speed is {speed!r}: allowed are 0.25 to 4")
    random = np.random.default_rng(seed)
    words, phones, end_s = _plan(text, speed, random)
    audio = np.zeros(round(end_s * rate))
    if phones:
        _add_voice(audio, phones, rate, pitch_hz, shift, random)
        _add_hiss(audio, phones, rate, shift, random)
        audio *= _PEAK / np.abs(audio).max()
    return Utterance(audio.astype(np.float32), words, rate)


def _plan(text: str, speed: float, random: np.random.Generator) -> tuple[tuple[Word, ...], list[_Phone], float]:
    """Return the words and phones with their times, and the end of the utterance."""
    words, phones = list[Word](), list[_Phone]()
    now_s, since_pause = 0.0, 0
    for written in _WORD.findall(text):
        pause_ms = max((_PAUSES_MS.get(mark, 0) for mark in re.findall(r"\W", written[-3:])), default=0)
        start_s = now_s
        syllables = _syllables(written)
        for place, syllable in enumerate(syllables):
            fall = max(0.82, 1.12 - 0.025 * since_pause)  # the pitch falls along a phrase
            accent = 1.08 if place == 0 else 1.0
            last = pause_ms > 0 and place == len(syllables) - 1
            rise = 1.35 if last and "?" in written else 1.0
            stretch = random.uniform(0.9, 1.1) * (1.5 if last else 1.0) / speed
            for formants, length_ms, voicing, hiss in _sounds(syllable):
                stop_s = now_s + length_ms / 1000 * stretch
                phones.append(_Phone(now_s, stop_s, formants, voicing, hiss, fall * accent * rise))
                now_s = stop_s
            since_pause += 1
        now_s = round(now_s * 1000) / 1000
        words.append(Word(written, round(start_s * 1000), round(now_s * 1000)))
        if pause_ms:
            now_s = round(now_s * 1000 + pause_ms / speed) / 1000
            since_pause = 0
    return tuple(words), phones, now_s


def _syllables(written: str) -> list[str]:
    """Cut a word into pieces of one vowel group each; digits and letters of other scripts make syllables too."""
    letters = "".join(character for character in written.lower() if character.isalnum())
    latin = re.findall(f"[^{_VOWELS}\\d]*(?:[{_VOWELS}]+|\\d)", letters)
    rest = letters[len("".join(latin)) :]
    if not latin:  # no vowel we know: two letters make a syllable
        return ["la"] * -(-len(rest) // 2)
    if len(latin) > 1 and not rest and latin[-1].endswith("e") and latin[-1] != "e" and len(latin[-1]) > 1:
        latin[-2:] = [latin[-2] + latin[-1][:-1]]  # the silent e of "there", "name"
    latin[-1] += rest
    return latin


def _sounds(syllable: str) -> list[tuple[str, float, float, float]]:
    """(formants, length in ms, voicing, hiss) of each sound of a syllable: consonant, vowel, consonant."""
    vowels = [letter for letter in syllable if letter in _VOWELS]
    glide = [vowels[0], vowels[-1]] if len(vowels) > 1 else vowels or ["o"]
    at = syllable.index(vowels[0]) if vowels else 0
    sounds = [_consonant(letter) for letter in syllable[:at][-2:]]
    sounds += [(_VOWEL_OF.get(vowel, vowel), 120.0 if len(glide) == 1 else 75.0, 1.0, 0.0) for vowel in glide]
    sounds += [_consonant(letter) for letter in syllable[at:] if letter not in _VOWELS][:1]
    return sounds


def _consonant(letter: str) -> tuple[str, float, float, float]:
    if letter in _HISSING:
        return "e", 55.0, 0.25, 0.35
    if letter in _BURSTING:
        return "u", 35.0, 0.15, 0.12
    return "nasal", 45.0, 0.55, 0.0


def _add_voice(
    audio: _Float, phones: list[_Phone], rate: int, pitch_hz: float, shift: float, random: np.random.Generator
) -> None:
    """Add the glottal pulses, each with the formants of its moment."""
    middles = np.array([(phone.start_s + phone.stop_s) / 2 for phone in phones])
    targets = np.array([(*_FORMANTS_HZ[phone.formants], _FOURTH_HZ) for phone in phones]) * shift
    pitches = np.array([phone.pitch for phone in phones]) * pitch_hz
    times_s = _pulse_times(middles, pitches, len(audio) / rate, random)
    level = _envelope(times_s, phones, [phone.voicing for phone in phones])
    times_s, level = times_s[level > 0.01], level[level > 0.01]
    level = level * random.uniform(0.9, 1.1, len(times_s))
    length = round(_GRAIN_S * rate)
    first = np.ceil(times_s * rate).astype(int)
    tau = ((first - times_s * rate)[:, None] + np.arange(length)) / rate
    tau = tau.astype(np.float32)
    grains = np.zeros((len(times_s), length), np.float32)
    for formant in range(4):
        hz = np.interp(times_s, middles, targets[:, formant])
        gain = _LEVELS[formant] * level * (hz < 0.45 * rate)
        decay = np.exp(np.float32(-np.pi * _BANDWIDTHS_HZ[formant]) * tau)
        grains += gain.astype(np.float32)[:, None] * decay * np.sin((2 * np.pi * hz).astype(np.float32)[:, None] * tau)
    grains *= np.minimum(1, tau * 2000) * np.minimum(1, (_GRAIN_S - tau).clip(0) * 400)  # soft ends: 0.5 and 2.5 ms
    for start, grain in zip(first.tolist(), grains, strict=True):
        stretch = audio[start : start + length]
        stretch += grain[: len(stretch)]


def _pulse_times(middles: _Float, pitches: _Float, end_s: float, random: np.random.Generator) -> _Float:
    grid = np.interp(np.arange(0, end_s, 0.005), middles, pitches).tolist()
    jitter = random.normal(1, 0.012, int(end_s * 1000) + 1).tolist()  # chosen: about that of a healthy voice
    times = []
    now_s = 0.0
    while now_s < end_s:
        times.append(now_s)
        now_s += jitter[len(times) % len(jitter)] / grid[min(int(now_s / 0.005), len(grid) - 1)]
    return np.array(times)


def _envelope(times_s: _Float, phones: list[_Phone], levels: list[float]) -> _Float:
    """Return the level at each time: constant within a phone, 12 ms slopes between phones, nothing in pauses."""
    points, values = list[float](), list[float]()
    for phone, level in zip(phones, levels, strict=True):
        edge = min(0.012, (phone.stop_s - phone.start_s) / 3)
        if points and phone.start_s > points[-1] + 0.02:  # a pause before
            points += [points[-1] + 0.012, phone.start_s]
            values += [0.0, 0.0]
        points += [phone.start_s + edge, phone.stop_s - edge]
        values += [level, level]
    return np.interp(times_s, points, values, left=0.0, right=0.0)


def _add_hiss(audio: _Float, phones: list[_Phone], rate: int, shift: float, random: np.random.Generator) -> None:
    """Add the noise of the hissing and bursting consonants."""
    for phone in phones:
        start, stop = round(phone.start_s * rate), min(round(phone.stop_s * rate), len(audio))
        if phone.hiss == 0 or stop - start < 8:
            continue
        spectrum = np.fft.rfft(random.standard_normal(stop - start))
        hz = np.fft.rfftfreq(stop - start, 1 / rate)
        centre = min(4800 * shift, 0.32 * rate)
        noise = np.fft.irfft(spectrum * np.exp(-(((hz - centre) / 1500) ** 2)), stop - start)
        noise *= phone.hiss * np.hanning(stop - start) / max(float(np.abs(noise).max()), 1e-9)
        audio[start:stop] += noise
