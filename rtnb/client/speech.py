"""Saying something aloud to a session: any audio in, the session's format out, in real time or at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.audio import Audio, Resampler, as_audio, ms_to_samples, read_wav
from rtnb.client.response import Response
from rtnb.errors import AudioError, LocalProtocolError, RtnbError
from rtnb.protocol.values import UNSET, SemanticVad, ServerVad

if TYPE_CHECKING:
    from rtnb.client.session import Session

Sound = npt.ArrayLike | str | os.PathLike[str]
"""An array of samples, or the path of a WAV file."""

CHUNK_MS: Final = 100
"""Length of one append; what the service's samples use."""

_MARGIN_MS = 300  # silence beyond what turn detection waits for (chosen: some frames of its model)
_SILENCE_MS = 500  # documented default where the service does not say
_EAGERNESS_MS = {"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
"""Longest wait of semantic turn detection (documented)."""


async def say(
    session: Session,
    audio: Sound,
    *,
    rate_hz: int | None = None,
    paced: bool | float | None = None,
    respond: bool = True,
    trailing_silence_ms: int | None = None,
    timeout_s: float | None = 15.0,
    **settings: Any,
) -> Response | None:
    """Say something aloud to a session; `Session.say`.

    With turn detection the audio is streamed like from a microphone, followed by the silence that ends the turn, and
    the service answers by itself. Without (push to talk) it is appended, committed, and a response is created.

    Parameters
    ----------
    audio : array_like or path
        Samples as `rtnb.audio.as_audio` takes them (int16, int32, uint8, float32, float64; mono or stereo), or the path
        of a WAV file.
    rate_hz : int, optional
        Rate of the array. None: a WAV file knows its own; a float array is taken to have the session's input rate;
        an integer array needs it.
    paced : bool or float, optional
        True sends in real time, False at once, a number that many times faster than real time. None: real time with
        turn detection (a flood makes it fire wrongly), at once without.
    respond : bool, default True
        False returns None as soon as everything is sent (push to talk: committed).
    trailing_silence_ms : int, optional
        At most this much silence follows, ending as soon as the service committed the turn. None: what turn detection
        waits for, and 300 ms; none without turn detection.
    timeout_s : float or None, default 15
        How long to wait for the service to begin its answer after the last chunk.
    **settings
        Of the response (`session.response.create`), where it is created here.

    Returns
    -------
    Response or None
        The response as it begins: await it for its end.

    Raises
    ------
    AudioError
        No audio, or an integer array without `rate_hz`.
    ServiceError
        The service refuses, e.g. less than 100 ms (``input_audio_buffer_commit_empty``).
    RtnbError
        The service did not answer within `timeout_s`: it heard no speech, or no end of it.
    """
    samples, rate_hz = _samples(audio, rate_hz, session.config.input_format.rate_hz)
    if respond and session.config.type == "transcription":
        raise LocalProtocolError("a transcription session gives no responses").with_hint("Pass respond=False.")
    detection = session.config.turn_detection
    if not detection:
        await _speak(session, samples, rate_hz, speed=_speed(paced, default=0.0), clear=True)
        await session.input_audio_buffer.commit()
        return await session.response.create(**settings) if respond else None
    if settings and _answers_itself(detection):
        names = ", ".join(settings)
        raise TypeError(f"with turn detection the service creates the response by itself: it takes no {names}")
    session._queue.skip()
    start = session._turns_committed
    await _speak(session, samples, rate_hz, speed=_speed(paced, default=1.0), clear=False)
    silence_ms = _silence_ms(detection) if trailing_silence_ms is None else trailing_silence_ms
    await _be_silent(session, silence_ms, speed=_speed(paced, default=1.0))
    if not respond:
        return None
    try:
        async with asyncio.timeout(timeout_s):
            return await _answer(session, start, itself=_answers_itself(detection), settings=settings)
    except TimeoutError as error:
        raise _no_answer(session._turns_committed > start, timeout_s) from error


# --- what comes in ----------------------------------------------------------------------------------------------------


def _samples(audio: Sound, rate_hz: int | None, session_rate_hz: int) -> tuple[Audio, int]:
    if isinstance(audio, str | os.PathLike):
        samples, file_rate_hz = read_wav(audio)
        if rate_hz not in (None, file_rate_hz):
            raise AudioError(f"rate_hz is {rate_hz}, but the WAV file says {file_rate_hz} Hz").with_hint(
                "Leave rate_hz out for files."
            )
        return samples, file_rate_hz
    array = np.asarray(audio) if not isinstance(audio, bytes | bytearray | memoryview) else audio
    if rate_hz is None and isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        raise AudioError(f"an array of {array.dtype} came without rate_hz").with_hint(
            "Say how many samples are a second, e.g. rate_hz=48_000."
        )
    return as_audio(array), session_rate_hz if rate_hz is None else rate_hz


def _speed(paced: bool | float | None, *, default: float) -> float:
    """How many times faster than real time; 0 is at once."""
    if paced is None or isinstance(paced, bool):
        return default if paced is None else float(paced)
    if not 0 < paced < float("inf"):
        raise ValueError(f"paced is {paced!r}; True, False, or how many times faster than real time (> 0)")
    return float(paced)


def _silence_ms(detection: Any) -> int:
    if isinstance(detection, ServerVad):
        wait_ms = detection.silence_duration_ms
        return (wait_ms if isinstance(wait_ms, int) else _SILENCE_MS) + _MARGIN_MS
    eagerness = detection.eagerness if isinstance(detection, SemanticVad) else "auto"
    return _EAGERNESS_MS.get(eagerness or "auto", _EAGERNESS_MS["low"]) + _MARGIN_MS


def _answers_itself(detection: Any) -> bool:
    return getattr(detection, "create_response", UNSET) in (UNSET, True)


# --- sending ----------------------------------------------------------------------------------------------------------


async def _speak(session: Session, samples: Audio, rate_hz: int, *, speed: float, clear: bool) -> None:
    if session._link.speak is not None:
        if clear:  # the track is never silent for the service: what it heard so far is not part of this utterance
            await session.input_audio_buffer.clear()
        await session._link.speak(samples, rate_hz)
        return
    wire_rate_hz = session.config.input_format.rate_hz
    if clear and session.state.input_audio_buffer.bytes:
        await session.input_audio_buffer.clear()  # what was left over is not part of this utterance
    await _send(session, _resampled(samples, rate_hz, wire_rate_hz), speed=speed)


def _resampled(samples: Audio, from_rate_hz: int, to_rate_hz: int) -> Iterator[Audio]:
    """The samples at another rate, in chunks: a long file neither blocks the loop nor doubles in memory."""
    resampler = Resampler(from_rate_hz=from_rate_hz, to_rate_hz=to_rate_hz)
    step, size = (ms_to_samples(CHUNK_MS, rate_hz=rate) for rate in (from_rate_hz, to_rate_hz))
    rest: Audio = np.zeros(0, np.float32)
    for position in range(0, len(samples) + 1, step):
        rest = np.concatenate([rest, resampler.process(samples[position : position + step])])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    rest = np.concatenate([rest, resampler.flush()])
    for position in range(0, len(rest), size):
        yield rest[position : position + size]


async def _be_silent(session: Session, silence_ms: int, *, speed: float) -> None:
    """Send silence until the service committed the turn that ends in it, at most so much.

    News of an earlier turn may still be on its way here: what counts is where in the stream a turn ended.
    """
    if session._link.speak is not None:
        return  # the track goes on by itself
    form = session.config.input_format
    rate_hz = form.rate_hz
    spoken_ms = session.state.input_audio_buffer.total_bytes / form.bytes_per_ms
    silence = np.zeros(ms_to_samples(silence_ms, rate_hz=rate_hz), np.float32)
    size = ms_to_samples(CHUNK_MS, rate_hz=rate_hz)
    chunks = (silence[position : position + size] for position in range(0, len(silence), size))
    await _send(session, chunks, speed=speed, until=lambda: session._committed_ms >= spoken_ms)


async def _send(
    session: Session, chunks: Iterable[Audio], *, speed: float, until: Callable[[], bool] = lambda: False
) -> None:
    """Send chunks in the rhythm of their own length: each goes out when it would have been spoken."""
    rate_hz = session.config.input_format.rate_hz
    start_s = session._link.clock()
    spoken_s = 0.0
    for chunk in chunks:
        spoken_s += len(chunk) / rate_hz
        if speed:
            wait_s = start_s + spoken_s / speed - session._link.clock()
            if wait_s > 0:
                await session._sleep(wait_s)
        if until():
            return
        await session.input_audio_buffer.append(chunk)


# --- the answer -------------------------------------------------------------------------------------------------------


async def _answer(session: Session, start: int, *, itself: bool, settings: dict[str, Any]) -> Response:
    """The response to the last turn that was committed (a pause in the audio makes several)."""
    if not itself:
        while session._turns_committed == start:
            await session._link.change()
        return await session.response.create(**settings)
    while True:
        response = await session._queue.next()
        unfinished = session.state.input_audio_buffer.speech_item_id is not None  # a later turn of ours goes on
        if response.requested_s >= session._last_turn_s and not unfinished:
            return response


def _no_answer(committed: bool, timeout_s: float | None) -> RtnbError:
    if committed:
        return RtnbError(f"the turn was committed, but no response began within {timeout_s:g} s")
    return RtnbError(f"no response within {timeout_s:g} s: the service heard no speech, or not its end").with_hint(
        "Check level and rate_hz, lower turn_detection.threshold, or send more silence (trailing_silence_ms)."
    )
