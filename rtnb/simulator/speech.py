"""Spoken text with the times of its words: the output of a `Voice`, and its deltas with their times (`plan`)."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, pairwise, repeat
from typing import Literal

import numpy as np
import numpy.typing as npt

from rtnb.audio import RATE_HZ, Word, codec
from rtnb.simulator.faults import LatencyProfile

# Punctuation by ranges, not by \W: the vowel signs of Hindi or Thai are \W to `re`, yet belong to their word.
_PUNCTUATION = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u303f\uff01-\uff0f\uff1a-\uff20،؛؟۔।"
_IDEOGRAM = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\s{_PUNCTUATION}{_IDEOGRAM}]"
_TOKEN = re.compile(rf"\s*(?:[{_IDEOGRAM}]|{_LETTER}+(?:['’.,_@/-]{_LETTER}+)*|\S)|\s+")
_WORD = re.compile(rf"{_LETTER}|[{_IDEOGRAM}]")
_SENTENCE_END = re.compile(r"""[.!?…؟۔।]+["'”’»)\]]*(?=\s)|[。！？]+[」』”’]*|(?<=\S)(?=\n\n)""")
_TRAILING_LEVEL = 0.02  # of the peak: below it the end of a word is over (-34 dB; chosen)
_EARLY_MS = 40  # how far audio may lie before its mark: one frame of `stretch`
_OPENING_MS = (100, 150)
_STEADY_MS = 250
_LAST_MS = 600
_LEAD_MS = 1000
"""How far the transcript is ahead of the audio, in speech time: "Hello", "!", " How" come first, as recorded."""


@dataclass(frozen=True, eq=False)
class Speech:
    """A spoken text.

    ``"".join(word.text for word in speech.words)`` is the text, exactly. `audio` is shared, therefore read-only.
    """

    audio: npt.NDArray[np.float32]
    """float32, shape (n_samples,), full scale ±1, 24 kHz."""
    words: tuple[Word, ...]
    """With the white space before each, as in transcript deltas: ``" help"``; punctuation stands alone: ``"!"``."""

    @property
    def text(self) -> str:
        """Return the spoken text."""
        return "".join(word.text for word in self.words)

    @cached_property
    def pcm(self) -> bytes:
        """PCM16 at 24 kHz."""
        return codec("audio/pcm").encode(self.audio)

    @property
    def duration_ms(self) -> float:
        """Length of `audio` in ms."""
        return 1000 * len(self.audio) / RATE_HZ

    def __repr__(self) -> str:
        return f"Speech({self.text!r}, {self.duration_ms:.0f} ms)"


def tokens(text: str) -> tuple[str, ...]:
    """Cut a text as transcript deltas are cut; the pieces joined are the text.

    >>> tokens("Hello! How can I help you?")
    ('Hello', '!', ' How', ' can', ' I', ' help', ' you', '?')
    """
    pieces = _TOKEN.findall(text)
    if len(pieces) > 1 and pieces[-1].isspace():
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    return tuple(pieces)


def sentences(text: str) -> tuple[str, ...]:
    """Cut a text after its sentences; the pieces joined are the text, white space goes with what follows.

    >>> sentences("Yes. It is 3.5 km! Anything else?")
    ('Yes.', ' It is 3.5 km!', ' Anything else?')
    """
    cuts = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return tuple(text[start:stop] for start, stop in pairwise(cuts) if start < stop)


def portions(text: str, *, max_chars: int = 200) -> tuple[str, ...]:
    """Cut a long text into portions of whole sentences, where those are short enough; joined they are the text.

    Parameters
    ----------
    text : str
        Any text.
    max_chars : int, default 200
        Longest portion. Shorter gives the event loop more turns in between (200 characters are about 12 s of speech,
        20 ms of work), longer a better melody. (chosen)
    """
    done: list[str] = []
    while len(text) > max_chars:
        ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_chars + 1])]
        space = text.rfind(" ", 1, max_chars)
        cut = next((end for end in reversed(ends) if end <= max_chars), space if space > 0 else max_chars)
        done.append(text[:cut])
        text = text[cut:]
    return (*done, text) if text else tuple(done)


def align(text: str, audio: npt.NDArray[np.float32], *, marks: Iterable[tuple[int, float]]) -> Speech:
    """Place every token of a text in its audio.

    Parameters
    ----------
    text : str
        Spoken text.
    audio : array of float32, shape (n_samples,)
        Samples at 24 kHz.
    marks : iterable of (offset, ms)
        Where the synthesiser began words: offset in `text` in characters, time in ms. May be few or none; what has no
        mark shares the time between its neighbours by its number of letters.

    Returns
    -------
    Speech
        A word before punctuation (or the end) stops where its sound fades; the pause belongs to the punctuation.
    """
    pieces = tokens(text)
    duration_ms = 1000 * len(audio) / RATE_HZ
    starts = _starts(pieces, duration_ms, marks)
    words: list[Word] = []
    for i, piece in enumerate(pieces):
        start, stop = starts[i], starts[i + 1]
        if words and not _WORD.search(piece):
            start = words[-1].stop_ms
        elif i + 1 == len(pieces) or not _WORD.search(pieces[i + 1]):
            after = next((starts[k] for k in range(i + 1, len(pieces)) if _WORD.search(pieces[k])), starts[-1])
            stop = _fade_ms(audio, start, after)
        words.append(Word(piece, start, max(start, stop)))
    audio.setflags(write=False)
    return Speech(audio, tuple(words))


def join(speeches: Sequence[Speech]) -> Speech:
    """Put speeches behind one another, their words shifted accordingly; none gives an empty one."""
    if len(speeches) == 1:
        return speeches[0]
    words: list[Word] = []
    n_samples = 0
    for speech in speeches:
        shift = 1000 * n_samples // RATE_HZ
        words += [Word(word.text, word.start_ms + shift, word.stop_ms + shift) for word in speech.words]
        n_samples += len(speech.audio)
    audio = np.concatenate([speech.audio for speech in speeches] or [np.zeros(0, np.float32)])
    audio.setflags(write=False)
    return Speech(audio, tuple(words))


def stretch(audio: npt.NDArray[np.float32], *, factor: float) -> npt.NDArray[np.float32]:
    """Make speech longer at the same pitch: `factor` 2 takes twice the time.

    References
    ----------
    W. Verhelst, M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993. Frames of
    40 ms, search of ±10 ms: one period of a voice down to 50 Hz (chosen).
    """
    size, hop, reach = 960, 480, 240
    if not len(audio) or factor == 1:
        return audio
    n_out = round(len(audio) * factor)
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    source = np.pad(audio, (hop, 2 * size + 2 * reach))
    out = np.zeros(n_out + 2 * size, np.float32)
    expected = source[:size]
    for start in range(0, n_out + hop, hop):
        low = min(max(0, round(start / factor) - reach), len(source) - size - 2 * reach - hop)
        region = source[low : low + size + 2 * reach]
        best = low + int(np.argmax(np.correlate(region, expected, "valid")))
        out[start : start + size] += window * source[best : best + size]
        expected = source[best + hop : best + hop + size]
    return out[hop : hop + n_out]


def _starts(pieces: Sequence[str], duration_ms: float, marks: Iterable[tuple[int, float]]) -> list[int]:
    """Return the start of every token in ms, and the end of the last.

    A word begins at its first mark, unless that lies before an earlier one; the time between is shared out by letters.
    """
    borders = np.cumsum([0, *map(len, pieces)])
    letters = np.cumsum([0, *(len(_WORD.findall(piece)) for piece in pieces)])
    places, times_ms = [0], [0.0]
    for offset, ms in sorted(marks):
        token = int(np.searchsorted(borders, offset, side="right")) - 1
        if (
            token < len(pieces)
            and letters[token + 1] > letters[token]
            and letters[token] > places[-1]
            and ms >= times_ms[-1]
        ):
            places.append(int(letters[token]))
            times_ms.append(min(ms, duration_ms))
    starts = np.interp(letters, [*places, letters[-1]], [*times_ms, duration_ms])
    return [*map(round, starts[:-1].tolist()), int(duration_ms)]


def _fade_ms(audio: npt.NDArray[np.float32], start_ms: int, stop_ms: int) -> int:
    """Return when the audio fades between two times, else `stop_ms`. The next word may begin a little early."""
    samples = RATE_HZ // 1000
    level = _TRAILING_LEVEL * np.max(np.abs(audio), initial=0)
    loud = np.flatnonzero(np.abs(audio[start_ms * samples : (stop_ms - _EARLY_MS) * samples]) > level)
    faded = start_ms + int(loud[-1]) // samples + 1 if len(loud) else stop_ms
    return faded if faded < stop_ms - 2 * _EARLY_MS else stop_ms


# --- deltas -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """Delta to send, with its time."""

    at_ms: float
    """When, ms after response.create."""
    kind: Literal["transcript", "audio", "text"]
    text: str = ""
    """Of a transcript or text delta."""
    start_ms: int = 0
    """Of an audio delta: from here in the speech …"""
    stop_ms: int | None = 0
    """… to here; None to the end. Whole ms, so `cut` finds whole samples at 24 kHz and at 8 kHz alike."""


def plan(speech: Speech, *, latency: LatencyProfile, rng: random.Random) -> tuple[Planned, ...]:
    """Plan the deltas of a spoken reply, in the order in which they are sent.

    Parameters
    ----------
    speech : Speech
        What is said.
    latency : LatencyProfile
        `first_delta_ms`, `audio_rate` and `jitter_ms` count here.
    rng : random.Random
        For the jitter: same state, same plan.

    Returns
    -------
    tuple of Planned
        Times never decrease. The transcript deltas joined are `speech.text`; each comes before the audio in which its
        word begins. The audio deltas cover the speech without gap or overlap.

    References
    ----------
    Sizes of audio deltas: 100, 150, 250, 250, … ms, the last up to 600 ms. Reproduces the three recorded replies of
    the Azure quickstart of 2024-10 byte for byte.
    """
    starts = list(accumulate(_sizes(speech.duration_ms), initial=0))
    at_ms = latency.first_delta_ms
    out: list[Planned] = []
    waiting = list(reversed(speech.words))
    for i, start in enumerate(starts):
        at_ms = max(at_ms, latency.first_delta_ms + start / latency.audio_rate + rng.uniform(0, latency.jitter_ms))
        stop = starts[i + 1] if i + 1 < len(starts) else None
        reach = math.inf if stop is None else max(stop, start + _LEAD_MS)
        while waiting and waiting[-1].start_ms < reach:
            out.append(Planned(at_ms, "transcript", text=waiting.pop().text))
        if len(speech.audio):
            out.append(Planned(at_ms, "audio", start_ms=start, stop_ms=stop))
    return tuple(out)


def plan_text(text: str, *, latency: LatencyProfile, rng: random.Random) -> tuple[Planned, ...]:
    """Plan the deltas of a written reply: kind "text", joined they are `text`."""
    at_ms = latency.first_delta_ms
    out: list[Planned] = []
    for i, token in enumerate(tokens(text)):
        at_ms = max(at_ms, latency.first_delta_ms + i * latency.text_token_ms + rng.uniform(0, latency.jitter_ms))
        out.append(Planned(at_ms, "text", text=token))
    return tuple(out)


def cut(pcm: bytes, delta: Planned, *, bytes_per_ms: int) -> bytes:
    """Return the bytes of an audio delta, cut from the encoded whole speech.

    Encode first, cut then: resampling piece by piece would click at every border.

    Parameters
    ----------
    pcm : bytes
        The whole speech as sent: PCM16 at 24 kHz, or G.711.
    delta : Planned
        Of kind "audio".
    bytes_per_ms : int
        48 for PCM16 at 24 kHz, 8 for G.711 (`rtnb.audio.codec(...).bytes_per_ms`).
    """
    stop = None if delta.stop_ms is None else delta.stop_ms * bytes_per_ms
    return pcm[delta.start_ms * bytes_per_ms : stop]


def _sizes(duration_ms: float) -> list[int]:
    """Sizes of all audio deltas but the last, ms."""
    sizes: list[int] = []
    for size in chain(_OPENING_MS, repeat(_STEADY_MS)):
        if duration_ms - sum(sizes) <= (size if len(sizes) < len(_OPENING_MS) else _LAST_MS):
            break
        sizes.append(size)
    return sizes
