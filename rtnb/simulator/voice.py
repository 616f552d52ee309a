"""The voice of the simulator: text in, speech out, with the time of every word.

Three kinds, chosen by name (`open_voice`), or any object with the methods of `Voice`:

- ``neural``: a small neural voice for English on this machine (package ``hibari-tts``, extra ``local``).
- ``espeak``: espeak-ng in a separate process (`pip install "rtnb[sim]"`, or the system's libespeak-ng), many
  languages, about 700 times faster than real time.
- ``babble``: sound with the shape of speech; needs nothing.

``auto`` takes espeak-ng where it starts and babble where not; `Voice.name` says which. The names of the service map
to audibly different speakers in each kind.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import unicodedata
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rtnb.audio import RATE_HZ, babble, resample
from rtnb.errors import AudioError
from rtnb.simulator.espeak import Worker, WorkerDied, find_espeak
from rtnb.simulator.speech import Speech, Word, align, join, portions, stretch

__all__ = ["VOICES", "BabbleVoice", "EspeakVoice", "Speech", "Timbre", "Voice", "Word", "open_voice", "timbre"]

_log = logging.getLogger(__name__)

KINDS: Final = ("auto", "neural", "espeak", "babble")
"""Names that `open_voice` takes."""
MIN_SPEED, MAX_SPEED = 0.25, 1.5
"""Allowed `speed`, as in the wire's ``session.audio.output.speed``."""
_WORDS_PER_MINUTE = 175  # espeak-ng's normal rate
_SLOWEST = 80  # espeakRATE_MINIMUM: what is slower is stretched


@dataclass(frozen=True)
class Timbre:
    """Settings for one of the service's voices. (The babble has its own table.)"""

    variant: str
    """espeak-ng voice variant."""
    pitch: int
    """espeak-ng pitch, 0 to 99."""
    semitones: float
    """Shift of the one neural voice: pitch and formants together."""


VOICES = {
    "cedar": Timbre("m6", 10, -5),
    "echo": Timbre("m1", 42, -4),
    "ash": Timbre("m3", 45, -3),
    "ballad": Timbre("m7", 60, -2),
    "verse": Timbre("m4", 85, -1),
    "alloy": Timbre("f4", 30, 0),
    "marin": Timbre("f1", 42, 1),
    "sage": Timbre("f2", 50, 2),
    "shimmer": Timbre("f3", 58, 3),
    "coral": Timbre("Annie", 62, 4),
}
"""The service's voices from low (74 Hz) to high (250 Hz), about 13 % apart. (chosen, measured)"""


def timbre(voice: str) -> Timbre:
    """Return the settings for a voice; an unknown name gets its own, the same every time."""
    if voice in VOICES:
        return VOICES[voice]
    number = zlib.crc32(voice.encode("utf-8", "replace"))
    base = VOICES[sorted(VOICES)[number % len(VOICES)]]
    shift = number // len(VOICES) % 25 - 12
    return Timbre(base.variant, min(99, max(0, base.pitch + shift)), number % 90 / 10 - 4.5)


class Voice(Protocol):
    """Speech synthesiser of the simulator."""

    @property
    def name(self) -> str:
        """Name of the voice for display; after a fallback, also the reason."""

    async def speak(self, text: str, *, voice: str = "alloy", speed: float = 1.0, language: str = "en") -> Speech:
        """Speak a text.

        Parameters
        ----------
        text : str
            Any length; empty gives a speech of no samples. Nothing in it is interpreted: ``<b>`` is read as it stands.
        voice : str, default "alloy"
            One of `VOICES`; any other name has its own settings.
        speed : float, default 1.0
            0.25 to 1.5; the duration goes as 1/speed.
        language : str, default "en"
            Language tag of the text. Babble has none.

        Raises
        ------
        AudioError
            For a speed out of range or a language that cannot be spoken.
        """

    async def aclose(self) -> None:
        """Let go of everything; may be called twice."""


BABBLE_CACHE_BYTES: Final = 16 * 2**20
"""Memory for babbled portions: 3 minutes. Chosen: sessions of a class get many of the same sentences."""


class BabbleVoice:
    """Speech-shaped sound without meaning: needs nothing installed, and turn detection takes it for speech.

    Parameters
    ----------
    seed : int, default 0
        Same seed, same sound.
    reason : str, optional
        Why it is not a better voice; part of `name`.
    """

    def __init__(self, *, seed: int = 0, reason: str | None = None) -> None:
        self._seed = seed
        self._reason = reason
        self._cache = _Cache(BABBLE_CACHE_BYTES)

    @property
    def name(self) -> str:
        return f"babble ({self._reason})" if self._reason else "babble"

    async def speak(self, text: str, *, voice: str = "alloy", speed: float = 1.0, language: str = "en") -> Speech:
        _check_speed(speed)
        done = []
        for portion in portions(text, max_chars=60):  # 20 ms of work each: the other sessions wait no longer
            key = portion, voice, speed
            speech = self._cache.get(key)
            if speech is None:
                speech = self.portion(portion, voice, speed)
                self._cache.put(key, speech)
                await asyncio.sleep(0)
            done.append(speech)
        return join(done)

    def portion(self, text: str, voice: str, speed: float) -> Speech:
        """Speak a text at once, whatever its length."""
        babbled = babble(_speakable(text), rate_hz=RATE_HZ, voice=voice, speed=speed, seed=self._seed)
        marks, at = [], 0
        for word in babbled.words:
            found = text.find(word.text.strip(), at)
            if found >= 0 and word.text.strip():
                marks.append((found, float(word.start_ms)))
                at = found + len(word.text.strip())
        return align(text, np.array(babbled.audio, np.float32), marks=marks)

    async def aclose(self) -> None:
        pass


CACHE_BYTES: Final = 64 * 2**20
"""Memory for speech of the other voices: 11 minutes. Chosen: many sessions that say the same are cheaper."""


class _PortionVoice:
    """Voice that speaks a text portion by portion and remembers what it spoke lately; sessions share it."""

    def __init__(self) -> None:
        self._cache = _Cache(CACHE_BYTES)
        self._tasks: dict[Any, asyncio.Task[Speech]] = {}
        self._closed = False

    async def speak(self, text: str, *, voice: str = "alloy", speed: float = 1.0, language: str = "en") -> Speech:
        _check_speed(speed)
        done = []
        for portion in portions(text):
            done.append(await self._remember(portion, voice, speed, language))
        return join(done)

    async def _remember(self, text: str, voice: str, speed: float, language: str) -> Speech:
        """Return one portion: from memory, from a call under way for the same words, or new."""
        key = (text, voice, speed, language)
        if (known := self._cache.get(key)) is not None:
            return known
        if self._closed:
            raise AudioError("this voice is closed; open another with open_voice()")
        if (task := self._tasks.get(key)) is None:
            task = self._tasks[key] = asyncio.create_task(self._make(*key), name="rtnb voice")
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
            task.add_done_callback(_retrieve)
        # Shielded: a caller who gives up must not leave half an answer in the pipe, nor take it from the others.
        return await asyncio.shield(task)

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class NeuralVoice(_PortionVoice):
    """Neural voice for English (hibari, 7.9 MB, one CPU thread); other languages go to another voice.

    Parameters
    ----------
    otherwise : Voice
        For other languages.

    Raises
    ------
    AudioError
        The package is not installed.
    """

    def __init__(self, *, otherwise: Voice) -> None:
        if find_spec("hibari") is None:
            raise AudioError("voice 'neural' needs the package hibari-tts").with_hint(
                'Install it with `pip install "rtnb[local]"`, or use the voice "espeak" or "babble".'
            )
        super().__init__()
        self._otherwise = otherwise
        self._model: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rtnb-neural")

    @property
    def name(self) -> str:
        return f"neural (hibari); other languages: {self._otherwise.name}"

    async def start(self) -> None:
        """Load the model now (about half a second) instead of at the first word."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._synthesise, "Ready.", 1.0)

    def _synthesise(self, text: str, speed: float) -> npt.NDArray[np.float32]:
        if self._model is None:
            self._model = importlib.import_module("hibari").Hibari(threads=1)
        return np.asarray(self._model(text, speed=speed, seed=0), np.float32)

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        if not language.startswith("en"):
            return await self._otherwise.speak(text, voice=voice, speed=speed, language=language)
        spoken = _speakable(text).strip()
        if not any(character.isalnum() for character in spoken):
            return align(text, np.zeros(0, np.float32), marks=[])
        ratio = 2 ** (timbre(voice).semitones / 12)
        loop = asyncio.get_running_loop()
        audio = await loop.run_in_executor(self._thread, self._synthesise, spoken, max(0.5, speed / ratio))
        audio = resample(audio, from_rate_hz=round(RATE_HZ * ratio), to_rate_hz=RATE_HZ)
        if speed / ratio < 0.5:  # the model speaks no slower
            audio = stretch(audio, factor=0.5 * ratio / speed)
        speech = align(text, np.array(audio, np.float32), marks=[])
        self._cache.put((text, voice, speed, language), speech)
        return speech

    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        await self._otherwise.aclose()


class EspeakVoice(_PortionVoice):
    """espeak-ng in a separate process (see `_espeak_worker`): understandable, about 700 times faster than real time.

    A worker that dies is started again and the portion it died on is tried once more; then that portion is babbled, and
    `name` says why. Sessions share one worker.

    Parameters
    ----------
    seed : int, default 0
        For the babble it falls back to; espeak-ng itself is not repeatable to the sample.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self._library, self._data = find_espeak()
        self._babble = BabbleVoice(seed=seed)
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None
        self._version = ""
        self._reason: str | None = None

    @property
    def name(self) -> str:
        return f"babble ({self._reason})" if self._reason else f"espeak-ng {self._version}".strip()

    async def start(self) -> None:
        """Start the worker now (about 60 ms) instead of at the first word.

        Raises
        ------
        AudioError
            When espeak-ng cannot be started here; the message says why.
        """
        try:
            async with self._turn:
                await self._ready()
        except WorkerDied as error:
            raise AudioError(f"espeak-ng does not start: {error}").with_hint(
                'Install it with `pip install "rtnb[sim]"`, or use the voice "babble".'
            ) from error

    async def aclose(self) -> None:
        await super().aclose()
        await self._drop_worker()

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        sound = timbre(voice)
        words_per_minute = _WORDS_PER_MINUTE * speed
        rate = max(_SLOWEST, round(words_per_minute))
        request = {
            "text": _speakable(text),
            "language": "en-us" if language == "en" else language,
            "variant": sound.variant,
            "rate": rate,
            "pitch": sound.pitch,
        }
        answer = await self._ask(request)
        if answer is None:
            return self._babble.portion(text, voice, speed)
        audio, marks = answer
        if words_per_minute < _SLOWEST:
            factor = _SLOWEST / words_per_minute
            audio = stretch(audio, factor=factor)
            marks = [(offset, ms * factor) for offset, ms in marks]
        speech = align(text, audio, marks=marks)
        self._cache.put((text, voice, speed, language), speech)
        return speech

    async def _ask(self, request: dict[str, Any]) -> tuple[npt.NDArray[np.float32], list[tuple[int, float]]] | None:
        """Ask the worker, twice if it dies; None after that."""
        reason = ""
        async with self._turn:
            for _ in range(2):
                try:
                    worker = await self._ready()
                    pcm, marks = await worker.speak(request)
                except WorkerDied as error:
                    reason = str(error)
                    await self._drop_worker()
                else:
                    self._reason = None
                    audio = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
                    return resample(audio, from_rate_hz=worker.rate_hz, to_rate_hz=RATE_HZ), marks
            self._reason = f"espeak-ng {reason}"
            _log.warning("babbling instead of speaking: espeak-ng %s", reason)
            return None

    async def _ready(self) -> Worker:
        if self._worker is None:
            self._worker = await Worker.start(self._library, self._data)
            self._version = self._worker.version
        return self._worker

    async def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()


async def open_voice(kind: str | Voice = "auto", *, seed: int = 0) -> Voice:
    """Open a voice: close it with ``await voice.aclose()``.

    Parameters
    ----------
    kind : {"auto", "neural", "espeak", "babble"} or Voice, default "auto"
        See the module.
    seed : int, default 0
        Same seed, same babble.

    Raises
    ------
    AudioError
        A voice that was named does not start here, or there is none of that name.
    """
    if not isinstance(kind, str):
        return kind
    if kind not in KINDS:
        raise AudioError(f'there is no voice {kind!r}; there are "auto", "neural", "espeak" and "babble"')
    if kind == "babble":
        return BabbleVoice(seed=seed)
    if kind == "neural":
        neural = NeuralVoice(otherwise=await open_voice("auto", seed=seed))
        await neural.start()
        return neural
    voice = EspeakVoice(seed=seed)
    try:
        await voice.start()
    except AudioError as error:
        await voice.aclose()
        if kind == "espeak":
            raise
        return BabbleVoice(seed=seed, reason=str(error))
    return voice


class _Cache:
    """The last speeches, forgotten by age when they take too many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._entries: OrderedDict[Any, Speech] = OrderedDict()

    def get(self, key: Any) -> Speech | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: Any, speech: Speech) -> None:
        if key not in self._entries:
            self._n_bytes += speech.audio.nbytes
        self._entries[key] = speech
        while self._n_bytes > self._max_bytes:
            self._n_bytes -= self._entries.popitem(last=False)[1].audio.nbytes


def _speakable(text: str) -> str:
    """Return the text with blanks for control, private and unassigned characters: \\x01 commands espeak-ng."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Co", "Cs", "Cn") and c != "\n" else c for c in text)


def _check_speed(speed: float) -> None:
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise AudioError(f"speed is {speed!r}; allowed: {MIN_SPEED} to {MAX_SPEED}")


def _retrieve(task: asyncio.Task[Speech]) -> None:
    """Retrieve the exception of an abandoned task, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
