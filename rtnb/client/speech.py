"""Speech and images of the user: any audio in, the session's format out, in real time or at once."""

from __future__ import annotations

import asyncio
import base64
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.audio import Audio, Resampler, as_audio, codec, ms_to_samples, read_wav
from rtnb.client.dispatcher import Dispatcher, Turns, creates_response
from rtnb.client.response import Response
from rtnb.errors import AudioError, ConnectionClosed, LocalProtocolError, RequestTimeout
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, ContentPart, Item, ResponseConfig, SemanticVad, ServerVad

Sound = npt.ArrayLike | str | os.PathLike[str]
"""An array of samples, or the path of a WAV file."""
Image = npt.ArrayLike | bytes | str | os.PathLike[str]
"""Pixels, an encoded image, or the path of an image file."""

CHUNK_MS: Final = 100
"""Duration of one append, as in the service's samples."""

_MARGIN_MS = 300  # silence beyond the hangover of turn detection (chosen: some frames of its model)
_SILENCE_MS = 500  # documented default where the service does not state it
_EAGERNESS_MS = {"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
"""Longest wait of semantic turn detection (documented)."""


def check_speech(dispatcher: Dispatcher, config: ResponseConfig | None, *, respond: bool) -> None:
    """Refuse a `say` that cannot get its answer, before anything is sent."""
    if respond:
        dispatcher.check_budget()
        if dispatcher.config.type == "transcription":
            raise LocalProtocolError("a transcription session gives no responses").with_hint("Pass respond=False.")
    if config is not None and creates_response(dispatcher.config.turn_detection):
        names = [f.name for f in fields(config) if f.name != "extra" and getattr(config, f.name) is not UNSET]
        raise TypeError(f"with turn detection the service creates the response: it takes no {', '.join(names)}")


# --- input ------------------------------------------------------------------------------------------------------------


def to_samples(audio: Sound, rate_hz: int | None) -> tuple[Audio, int]:
    """Return samples as float32 and their rate; an array without a rate is refused."""
    if isinstance(audio, str | os.PathLike):
        samples, file_rate_hz = read_wav(audio)
        if rate_hz not in (None, file_rate_hz):
            raise AudioError(f"rate_hz is {rate_hz}, but the WAV file has {file_rate_hz} Hz").with_hint(
                "Leave rate_hz out for files."
            )
        return samples, file_rate_hz
    if rate_hz is None:
        kind = getattr(audio, "dtype", type(audio).__name__)
        raise AudioError(f"an array of {kind} without rate_hz").with_hint(
            "Pass the samples per second, e.g. rate_hz=24_000: at a wrong rate the service hears noise."
        )
    return as_audio(audio), rate_hz


def to_speed(paced: bool | float | None, *, default: float) -> float:
    """Return how many times faster than real time; 0 is at once."""
    if paced is None or isinstance(paced, bool):
        return default if paced is None else float(paced)
    if not 0 < paced < float("inf"):
        raise ValueError(f"paced is {paced!r}; True, False, or how many times faster than real time (> 0)")
    return float(paced)


def _silence_ms(detection: Any) -> int:
    if isinstance(detection, ServerVad):
        hangover_ms = detection.silence_duration_ms
        return (hangover_ms if isinstance(hangover_ms, int) else _SILENCE_MS) + _MARGIN_MS
    eagerness = detection.eagerness if isinstance(detection, SemanticVad) else "auto"
    return _EAGERNESS_MS.get(eagerness or "auto", _EAGERNESS_MS["low"]) + _MARGIN_MS


def image_item(image: Image, *, detail: str) -> Item:
    """Return a user item with an image.

    Raises
    ------
    ValueError
        Not an image, or pixels of a wrong shape.
    """
    data = Path(image).read_bytes() if isinstance(image, str | os.PathLike) else image
    if not isinstance(data, bytes | bytearray | memoryview):
        from PIL import Image as Pillow  # 50 ms to import: only where pixels are encoded

        pixels = np.asarray(data)
        if pixels.dtype.kind == "f":
            pixels = np.round(255 * np.clip(pixels, 0, 1))
        if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
            raise ValueError(f"pixels of shape {pixels.shape}; allowed: (height, width), or with 3 or 4 channels")
        if not ((pixels >= 0) & (pixels <= 255)).all():
            raise ValueError("pixels outside of their range; allowed: whole numbers 0 to 255, or floats from 0 to 1")
        file = io.BytesIO()
        Pillow.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        data = file.getvalue()
    data = bytes(data)
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    if kind is None:
        raise ValueError(f"{len(data)} bytes that are neither PNG nor JPEG; the service takes these two")
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    part = ContentPart(type="input_image", image_url=url, detail=detail)
    return Item(type="message", role="user", content=(part,))


_MAGIC = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"))


# --- sending ----------------------------------------------------------------------------------------------------------


async def speak(dispatcher: Dispatcher, samples: Audio, rate_hz: int, *, speed: float, clear: bool) -> None:
    over_track = dispatcher.speak is not None
    # Audio from before is not part of this utterance. A WebRTC track always carries some.
    if clear and (over_track or dispatcher.connection.state.input_audio_buffer.bytes):
        event = events.InputAudioBufferClear(event_id=dispatcher.new_id("client"))
        await dispatcher.request(event, "input_audio_buffer.cleared")
    if dispatcher.speak is not None:
        await dispatcher.speak(samples, rate_hz)
        return
    wire_rate_hz = dispatcher.config.input_format.rate_hz
    await send_audio(dispatcher, _resampled(samples, rate_hz, wire_rate_hz), speed=speed)


def _resampled(samples: Audio, from_rate_hz: int, to_rate_hz: int) -> Iterator[Audio]:
    """Yield the samples at another rate, in chunks: a long file neither blocks the loop nor doubles in memory."""
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


async def be_silent(dispatcher: Dispatcher, silence_ms: int | None, *, speed: float) -> None:
    """Send silence until the service committed the turn that ends in it, or for `silence_ms` (None: long enough).

    The event of an earlier turn may still be on its way: the position in the audio stream decides, not the count.
    """
    if dispatcher.speak is not None:
        return  # the track continues with silence
    if silence_ms is None:
        silence_ms = _silence_ms(dispatcher.config.turn_detection)
    form = dispatcher.config.input_format
    spoken_ms = dispatcher.connection.state.input_audio_buffer.total_bytes / form.bytes_per_ms
    silence = np.zeros(ms_to_samples(silence_ms, rate_hz=form.rate_hz), np.float32)
    size = ms_to_samples(CHUNK_MS, rate_hz=form.rate_hz)
    chunks = (silence[position : position + size] for position in range(0, len(silence), size))
    await send_audio(dispatcher, chunks, speed=speed, until=lambda: dispatcher.turns.committed_ms >= spoken_ms)


async def send_audio(
    dispatcher: Dispatcher, chunks: Iterable[Audio], *, speed: float, until: Callable[[], bool] = lambda: False
) -> None:
    """Append chunks at the session's rate, each when it would have been spoken; `speed` 0 sends at once."""
    form = dispatcher.config.input_format
    encode, turns = codec(form.type).encode, dispatcher.turns
    start_s, spoken_s = dispatcher.clock(), 0.0
    for chunk in chunks:
        spoken_s += len(chunk) / form.rate_hz
        if speed:
            wait_s = start_s + spoken_s / speed - dispatcher.clock()
            if wait_s > 0:
                await dispatcher.sleep(wait_s)
        if until():
            return
        _check_connection(dispatcher, turns)
        await dispatcher.send(events.InputAudioBufferAppend(audio=encode(chunk), event_id=dispatcher.new_id("client")))


# --- the answer -------------------------------------------------------------------------------------------------------


async def answer(
    dispatcher: Dispatcher, turns: Turns, start: int, config: ResponseConfig | None, timeout_s: float | None
) -> Response:
    """Return the response to the last turn that was committed; a pause in the audio makes several turns."""
    own = creates_response(dispatcher.config.turn_detection)
    limit_s = dispatcher.request_timeout_s if timeout_s is None else timeout_s
    try:
        async with asyncio.timeout(limit_s):
            while own or turns.count == start:
                _check_connection(dispatcher, turns)
                if own and (response := _last_answer(dispatcher)) is not None:
                    return response
                await dispatcher.next_event()
    except TimeoutError:
        if turns.count > start:
            raise RequestTimeout("say", awaited="response.created", timeout_s=limit_s) from None
        raise RequestTimeout("say", awaited="input_audio_buffer.committed", timeout_s=limit_s).with_hint(
            "The service detected no speech, or not its end: check level and rate_hz, lower turn_detection.threshold, "
            "or send more silence (trailing_silence_ms)."
        ) from None
    return await dispatcher.create_response(config, timeout_s=timeout_s)


def _check_connection(dispatcher: Dispatcher, turns: Turns) -> None:
    if dispatcher.turns is not turns:
        raise ConnectionClosed("the connection ended before the answer began: say it again")


def _last_answer(dispatcher: Dispatcher) -> Response | None:
    """Return the response to the last turn; None while that turn or its response is still to come."""
    unfinished = dispatcher.connection.state.input_audio_buffer.speech_item_id is not None
    while claimed := dispatcher.responses.claimed:
        response = claimed.popleft()
        if response.requested_s >= dispatcher.turns.committed_s and not unfinished:
            return response
    return None
