"""Turn detection of the simulator: start and end of the user's speech.

Encoded bytes come in and are judged in 32 ms frames; `Started`, `Stopped` and `IdleTimeout` come out. The server VAD is
:mod:`rtnb.vad`. The semantic VAD asks an `EndOfTurn` in each pause whether the turn is finished, because the service's
own classifier is not public: `SmartTurnDetector` (a model) or `FadeDetector` (a rule), chosen by `open_turn_detector`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from rtnb.audio import Audio, Codec, codec, ms_to_samples
from rtnb.errors import AudioError
from rtnb.protocol import AudioFormat, SemanticVad, ServerVad
from rtnb.protocol.values import SERVER_VAD_DEFAULTS
from rtnb.vad import FRAME_MS, SpeechProbabilities, push_to_many
from rtnb.vad.semantic import WINDOW_S, SmartTurn
from rtnb.vad.server_vad import ServerVadMachine, SpeechStarted, VadConstants, idle_timeout_span

MAX_WAIT_MS: Final = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
"""Longest wait of the semantic VAD by eagerness (documented)."""
KEEP_MS: Final = 60_000
"""Audio kept outside a turn. Chosen: twice the longest idle timeout; a longer prefix padding is cut to it."""
MOST_BYTES: Final = 32 * 2**20
"""Encoded audio kept in any case: 11 minutes of PCM. Chosen. Of a longer turn the item keeps the newest part."""
QUIET: Final = 0.35
"""Below this probability a pause may have begun: the server VAD's release threshold at its defaults."""


class EndOfTurn(Protocol):
    """Judge of pauses for the semantic VAD, shared by all sessions."""

    name: str
    quiet_frames: int
    """Frames of a pause after which the model runs."""
    wait_ms: Mapping[str, int]
    """By eagerness: silence that ends a turn which it calls finished."""
    threshold: Mapping[str, float]
    """By eagerness: probability from which a turn counts as finished."""

    async def probability(self, audio: Audio, *, rate_hz: int) -> float:
        """Return the probability that the speaker has finished.

        Parameters
        ----------
        audio : ndarray, float32, shape (n_samples,)
            The turn so far, with the beginning of the pause.
        rate_hz : int
            Its sample rate.
        """

    async def aclose(self) -> None:
        """Release everything; closing twice is fine."""


FADE_DB: Final = 6.0
"""A turn sounds finished when its last 300 ms are this much softer than the whole. Chosen."""
FADE_MS: Final = 300


class FadeDetector:
    """Rule without a model: a turn is finished where the voice fades before the pause."""

    name = "fade (a rule: the voice gets softer)"
    quiet_frames = 1
    wait_ms: Mapping[str, int] = {"low": 1600, "medium": 800, "auto": 800, "high": 400}
    """A fifth of the longest wait. Chosen."""
    threshold: Mapping[str, float] = {"low": 0.5, "medium": 0.5, "auto": 0.5, "high": 0.5}

    async def probability(self, audio: Audio, *, rate_hz: int) -> float:
        tail = audio[-rate_hz * FADE_MS // 1000 :]
        level, end = (float(np.sqrt(np.mean(x**2) + 1e-12)) for x in (audio, tail))
        return float(20 * np.log10(level / end) >= FADE_DB)

    async def aclose(self) -> None:
        pass


class SmartTurnDetector:
    """Smart Turn v3, in a dedicated thread; see :mod:`rtnb.vad.semantic`.

    Parameters
    ----------
    weights : path, optional
        As of `rtnb.vad.semantic.find_smart_turn`, whose errors are raised.
    """

    quiet_frames = 6
    """192 ms: the model was trained on turns with 200 ms of silence after them."""
    wait_ms: Mapping[str, int] = {"low": 480, "medium": 224, "auto": 224, "high": 224}
    """Chosen: the model runs after 192 ms, and low eagerness waits for half a second more."""
    threshold: Mapping[str, float] = {"low": 0.8, "medium": 0.5, "auto": 0.5, "high": 0.3}
    """Chosen around the model's own 0.5."""

    def __init__(self, weights: str | None = None) -> None:
        self._model = SmartTurn(weights)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rtnb-turn")
        self.name = f"smart-turn ({self._model.path.name})"

    async def probability(self, audio: Audio, *, rate_hz: int) -> float:
        work = functools.partial(self._model.probability, audio[-WINDOW_S * rate_hz :], rate_hz=rate_hz)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


def open_turn_detector(kind: str | EndOfTurn = "auto") -> EndOfTurn:
    """Return a judge of pauses by name, path or as it is.

    Parameters
    ----------
    kind : {"auto", "fade", "smart-turn"} or path of an ONNX file or EndOfTurn
        "auto" takes Smart Turn where its weights are installed, else the rule.

    Raises
    ------
    AudioError
        Smart Turn was named, and its weights or ``onnxruntime`` are missing.
    """
    if not isinstance(kind, str):
        return kind
    if kind == "fade":
        return FadeDetector()
    if kind != "auto":
        return SmartTurnDetector(None if kind == "smart-turn" else kind)
    try:
        return SmartTurnDetector()
    except AudioError:  # not installed: `doctor` says how to get it
        return FadeDetector()


@dataclass(frozen=True)
class Started:
    """Speech began; `audio_start_ms` includes the prefix padding."""

    audio_start_ms: int


@dataclass(frozen=True)
class Stopped:
    """The turn ended; `audio_end_ms` includes the silence."""

    audio_start_ms: int
    audio_end_ms: int


@dataclass(frozen=True)
class IdleTimeout:
    """No speech for the idle timeout after the last reply was played."""

    audio_start_ms: int
    audio_end_ms: int


Heard = Started | Stopped | IdleTimeout


BATCH_MS: Final = 32.0
"""Shortest time between two batches of speech probabilities. Chosen: a frame; 150 sessions share batches of 48 and
cost half as much, and a lone session does not wait."""
REST: Final = 3
"""Time between two batches of long audio, as a multiple of the time that the first of them took. Chosen."""
SLICE_MS: Final = 500
"""Longest audio of one session in a batch: more would hold up the others. Chosen."""


class SpeechBatch:
    """Speech probabilities of all sessions of a simulator, computed in batches.

    Parameters
    ----------
    interval_ms : float, default 0
        Shortest time between two batches; 0 computes at once, without waiting.
    """

    def __init__(self, *, interval_ms: float = 0.0) -> None:
        self._interval_s = interval_ms / 1000
        self._waiting: list[tuple[SpeechProbabilities, Audio, asyncio.Future[list[float]]]] = []
        self._next_s = self._rest_s = 0.0
        self._alone: SpeechProbabilities | None = None
        """Stream of the last batch, where it was the only one."""
        self._timer: asyncio.TimerHandle | None = None

    async def push(self, stream: SpeechProbabilities, audio: Audio) -> list[float]:
        """Take audio of one stream, which waits for its last push; return the probabilities of its new frames."""
        return await self._wait(stream, audio) if self._interval_s else stream.push(audio).tolist()

    def _wait(self, stream: SpeechProbabilities, audio: Audio) -> asyncio.Future[list[float]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[float]] = loop.create_future()
        self._waiting.append((stream, audio, future))
        # A stream alone, or with much audio at once, need not wait for a whole interval; it leaves most time to others.
        hurried = stream is self._alone or len(audio) >= stream.rate_hz * SLICE_MS // 1000
        earliest_s = self._rest_s if hurried else self._next_s
        due_s = max(earliest_s, loop.time())
        if self._timer is None or self._timer.when() > due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due_s, self._compute)
        return future

    def _compute(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer, began_s = None, loop.time()
        waiting, self._waiting = [one for one in self._waiting if not one[2].cancelled()], []
        if waiting:
            streams, audio, futures = zip(*waiting, strict=True)
            self._alone = streams[0] if len(streams) == 1 else None
            for future, probabilities in zip(futures, push_to_many(streams, audio), strict=True):
                future.set_result(probabilities.tolist())
        self._next_s = began_s + self._interval_s
        self._rest_s = loop.time() + REST * (loop.time() - began_s)


class TurnDetection:
    """Turn detection of one session. All times are stream time: ms of audio since the session began.

    Parameters
    ----------
    speech : SpeechBatch
        Shared with the other sessions.
    end_of_turn : EndOfTurn, optional
        Judge of pauses for the semantic VAD; None takes the rule.
    phase_ms : float, default 0
        The frames begin this much later than the stream.
    ignores_settings : bool, default False
        Whatever is set, the server VAD goes on as by default: some deployments were seen to do that.
    **constants
        Fields of :class:`rtnb.vad.VadConstants`, which no document gives (`hysteresis`, `min_speech_frames`, …).
    """

    def __init__(
        self,
        speech: SpeechBatch,
        end_of_turn: EndOfTurn | None = None,
        *,
        phase_ms: float = 0,
        ignores_settings: bool = False,
        **constants: Any,
    ) -> None:
        self._batch, self._judge = speech, end_of_turn or FadeDetector()
        self._constants = VadConstants(**constants)
        self._phase_ms, self._ignores_settings = phase_ms, ignores_settings
        self._format: AudioFormat | None = None
        self._codec: Codec = codec("audio/pcm")
        self._detection: Any = None
        self._machine: ServerVadMachine | None = None
        self._start_ms = 0
        self._idle_start_ms: float | None = None
        self._quiet_frames = 0
        self._listen(AudioFormat())

    def _listen(self, audio_format: AudioFormat) -> None:
        """Start a new stream in another format; the clock goes on, uncommitted audio of the old format is gone."""
        base_ms = self.heard_ms if self._format is not None else 0.0
        self._format = audio_format
        self._codec = codec(audio_format.type)
        self._new_stream()
        self._speech.push(np.zeros(ms_to_samples(self._phase_ms, rate_hz=self._codec.rate_hz)))
        self._base_ms = int(base_ms)
        """Stream time at which the kept bytes begin."""
        self._kept, self._n_kept = list[bytearray](), 0
        """Audio in blocks of a second (one buffer of a minute would be copied again and again), and its bytes."""
        self._frame = int(base_ms) // FRAME_MS
        """Number of the next 32 ms frame, counted from the start of the session."""
        self._floor_ms = self._base_ms
        """Audio before this time is discarded: no prefix padding reaches behind it."""
        self._uncommitted_from_ms = base_ms

    def _new_stream(self) -> None:
        """Begin a new stream of probabilities."""
        self._behind = False
        """True while audio came that no probabilities were computed for."""
        self._unheard, self._n_heard = bytearray(), 0
        """Bytes that wait for the end of their frame, and those before them."""
        self._speech = SpeechProbabilities(rate_hz=self._codec.rate_hz)

    @property
    def heard_ms(self) -> float:
        """All audio appended so far."""
        return self._base_ms + self._n_kept / self._codec.bytes_per_ms

    @property
    def uncommitted_ms(self) -> tuple[int, int]:
        """Start and end of what a commit by hand takes."""
        return max(self._base_ms, int(self._uncommitted_from_ms)), int(self.heard_ms)

    @property
    def bytes_per_sample(self) -> int:
        """2 for PCM, 1 for G.711."""
        return self._codec.bytes_per_sample

    @property
    def _speaking(self) -> bool:
        return self._machine is not None and self._machine.speaking

    # --- settings -----------------------------------------------------------------------------------------------------

    def configure(self, detection: Any, audio_format: AudioFormat) -> None:
        """Follow the session's turn detection and input format. A turn under way goes on under the new settings; it is
        forgotten where turn detection is switched off or the format changes."""
        if self._format is None or audio_format.type != self._format.type:
            self._listen(audio_format)
            self._machine = None
        if detection == self._detection and self._machine is not None:
            return
        self._detection = detection
        settings = self._settings(SERVER_VAD_DEFAULTS if detection and self._ignores_settings else detection)
        if settings is None:
            self._machine = None
        elif self._machine is None:
            self._machine = ServerVadMachine(**settings, constants=self._constants)
            self._machine.reset(frame=self._frame)
        else:
            self._machine.configure(**settings)

    @staticmethod
    def _settings(detection: Any) -> dict[str, Any] | None:
        if isinstance(detection, ServerVad):
            return {
                "threshold": detection.threshold if isinstance(detection.threshold, (int, float)) else 0.5,
                "silence_duration_ms": detection.silence_duration_ms or 0,
                "prefix_padding_ms": detection.prefix_padding_ms or 0,
            }
        if isinstance(detection, SemanticVad):
            wait = MAX_WAIT_MS.get(str(detection.eagerness), MAX_WAIT_MS["auto"])
            return {"threshold": 0.5, "silence_duration_ms": wait, "prefix_padding_ms": 300}
        return None

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def append(self, data: bytes) -> AsyncIterator[Heard]:
        """Take the next bytes (whole samples). Yields what happened frame by frame, so that what the caller does about
        it holds for the frames behind it; go through it to the end."""
        self._keep(data)
        if self._machine is None:  # nothing asks for probabilities: a new stream begins when something does
            self._frame, self._behind = int(self.heard_ms - self._phase_ms) // FRAME_MS, True
            self._forget()
            return
        if self._behind:
            self._new_stream()
            data = self.encoded(int(self._frame * FRAME_MS + self._phase_ms), int(self.heard_ms))
        self._unheard += data
        size = FRAME_MS * self._codec.bytes_per_ms
        if (self._n_heard + len(self._unheard)) // size == self._n_heard // size:
            return  # no frame is complete: pieces of a millisecond must not fill the batches
        data = bytes(self._unheard)
        self._n_heard += len(data)
        self._unheard.clear()
        step = SLICE_MS * self._codec.bytes_per_ms
        for start in range(0, len(data), step):
            part = self._codec.decode(data[start : start + step])
            for probability in await self._batch.push(self._speech, part):
                self._frame += 1
                for detected in self._advance(probability):
                    yield detected
                if isinstance(self._detection, SemanticVad) and self._speaking:
                    await self._judge_pause(probability)
        self._forget()

    def _advance(self, probability: float) -> list[Heard]:
        """Take the next frame; return what it detects."""
        if self._machine is None:  # switched off by what the caller did about the frame before
            return []
        found = [self._turn(event) for event in self._machine.push((probability,))]
        if self._idle_start_ms is not None:
            found += self._idle(self._idle_start_ms)
        return found

    def _turn(self, event: Any) -> Heard:
        if isinstance(event, SpeechStarted):
            self._start_ms = max(event.audio_start_ms, self._floor_ms)
            self._quiet_frames, self._idle_start_ms = 0, None
            return Started(self._start_ms)
        return Stopped(self._start_ms, event.audio_end_ms)

    async def _judge_pause(self, probability: float) -> None:
        """Decide in a pause under semantic VAD how long to wait for more speech."""
        assert self._machine is not None
        eagerness = str(self._detection.eagerness)
        eagerness = eagerness if eagerness in self._judge.wait_ms else "auto"
        self._quiet_frames = self._quiet_frames + 1 if probability < QUIET else 0
        if self._quiet_frames == 0:
            self._machine.configure(silence_duration_ms=MAX_WAIT_MS[eagerness])
        elif self._quiet_frames == self._judge.quiet_frames:
            now_ms = self._frame * FRAME_MS
            audio = self._codec.decode(self.encoded(self._start_ms, now_ms))
            finished = await self._judge.probability(audio, rate_hz=self._codec.rate_hz)
            if finished >= self._judge.threshold[eagerness]:
                self._machine.configure(silence_duration_ms=self._judge.wait_ms[eagerness])

    # --- the idle timeout ---------------------------------------------------------------------------------------------

    def reply_started(self) -> None:
        """Stop the idle timeout: a reply begins."""
        self._idle_start_ms = None

    def reply_ended(self, *, playing_ms: float) -> None:
        """Note a generated reply whose audio plays for another `playing_ms`: the idle timeout counts from then."""
        if not self._speaking:
            self._idle_start_ms = self.heard_ms + playing_ms

    def _idle(self, start_ms: float) -> Iterator[Heard]:
        timeout = self._detection.idle_timeout_ms if isinstance(self._detection, ServerVad) else None
        if not timeout or self._speaking:
            return
        span_ms = idle_timeout_span(start_ms, idle_timeout_ms=timeout)
        if self._frame * FRAME_MS >= span_ms[1]:
            self._idle_start_ms = None
            yield IdleTimeout(*span_ms)

    # --- the buffer ---------------------------------------------------------------------------------------------------

    def commit(self, start_ms: int, end_ms: int) -> bytes:
        """Take the audio between two times as an item; what comes later stays uncommitted."""
        self._uncommitted_from_ms = end_ms
        return self.encoded(start_ms, end_ms)

    def end_turn(self) -> None:
        """End a running turn without a `Stopped`, because the client committed."""
        if self._machine is not None:
            self._machine.reset(frame=self._frame)

    def clear(self) -> None:
        """Discard all audio so far, and the turn under way."""
        self.end_turn()
        self._uncommitted_from_ms = self.heard_ms
        self._floor_ms = int(self.heard_ms)

    def encoded(self, start_ms: int, stop_ms: int) -> bytes:
        """Return the bytes between two times; older audio may be gone."""
        start, stop = max(0, start_ms - self._base_ms), max(0, stop_ms - self._base_ms)
        first, step = start // 1000, self._codec.bytes_per_ms
        blocks = self._kept[first : stop // 1000 + 1]
        n_before = 1000 * first * step
        return b"".join(blocks)[start * step - n_before : min(stop * step, self._n_kept) - n_before]

    def _keep(self, data: bytes) -> None:
        size = 1000 * self._codec.bytes_per_ms
        while data:
            at = self._n_kept % size
            if at == 0:
                self._kept.append(bytearray(size))
            piece, data = data[: size - at], data[size - at :]
            self._kept[-1][at : at + len(piece)] = piece
            self._n_kept += len(piece)

    def _forget(self) -> None:
        """Drop audio that no item will need, a second at a time.

        Outside a turn that is all but the last minute, or in push to talk all that was committed or cleared; in a turn
        it is what exceeds `MOST_BYTES`.
        """
        until_ms = self.heard_ms - MOST_BYTES // self._codec.bytes_per_ms
        if not self._speaking:
            settled_ms = self.heard_ms - KEEP_MS if self._machine is not None else self._uncommitted_from_ms
            until_ms = max(until_ms, settled_ms)
        surplus = min((int(until_ms) - self._base_ms) // 1000, len(self._kept) - 1)
        if surplus > 0:
            del self._kept[:surplus]
            self._n_kept -= 1000 * surplus * self._codec.bytes_per_ms
            self._base_ms += 1000 * surplus
