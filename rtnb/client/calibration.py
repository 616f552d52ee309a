"""Measure a service's server VAD: stream recordings under several settings, fit the local model to what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
from tqdm.auto import tqdm

from rtnb.analysis.calibrated import Calibration
from rtnb.analysis.calibrating import Told, fit_constants
from rtnb.audio import Audio, codec, ms_to_samples, resample
from rtnb.client.log import EventLog
from rtnb.client.speech import CHUNK_MS, _send, _speed
from rtnb.errors import AudioError, LocalProtocolError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS

if TYPE_CHECKING:
    from rtnb.client.session import Session

SETTINGS: Final = tuple(
    ServerVad(threshold=threshold, silence_duration_ms=silence_ms, prefix_padding_ms=prefix_ms)
    for threshold, silence_ms, prefix_ms in (
        (0.5, 200, 300),
        (0.3, 500, 300),
        (0.7, 200, 160),
        (0.5, 500, 160),
        (0.3, 200, 160),
        (0.7, 500, 300),
    )
)
"""Thresholds, silences and prefixes whose effects can be told apart; 200 and 500 ms round differently. Chosen."""
_NAMES = ("threshold", "silence_duration_ms", "prefix_padding_ms")
_GAP_MS = 800
"""Silence after each clip beyond the silence duration: longer than any start or stop is late. Chosen."""


class Clip(Protocol):
    """What is streamed; `rtnb.analysis.recordings.Recording` has it."""

    @property
    def audio(self) -> Audio: ...
    @property
    def rate_hz(self) -> int: ...


async def calibrate(
    session: Session,
    recordings: Sequence[Clip],
    *,
    settings: Sequence[ServerVad] = SETTINGS,
    paced: bool | float = True,
    deployment: str | None = None,
    progress: bool = True,
) -> Calibration:
    """Find out how a service's server VAD differs from the local model.

    The recordings are streamed once under each setting, with `create_response` and `interrupt_response` off: the
    service tells when speech starts and stops, and never answers. What the local model would tell of the same audio is
    fitted to that. Afterwards the session's turn detection is as before and the items that came to be are deleted. Use
    a session of its own: only then does the service hear from the beginning what the model hears.

    Parameters
    ----------
    session : Session
        Open, nobody speaking.
    recordings : sequence of Recording
        10 to 20 short clips with pauses; more tell the constants better apart. Labels are not needed.
    settings : sequence of ServerVad
        Tried one after another. Default: six that can be told apart.
    paced : bool or float, default True
        True streams in real time, as services expect; a number that many times faster; False at once, for simulators.
    deployment : str, optional
        Names the service. Default: its host and model.
    progress : bool, default True
        Show a bar.

    Returns
    -------
    Calibration
        Its `constants` are for `rtnb.sweep`; `save` keeps it for this deployment.

    Raises
    ------
    AudioError
        No recordings.
    LocalProtocolError
        A call over WebRTC: audio cannot be streamed over its data channel.
    ServiceError
        The service refuses a setting.
    """
    if not recordings:
        raise AudioError("no recordings to calibrate with").with_hint("Give a few short clips of speech with pauses.")
    if session._link.connection.webrtc:
        raise LocalProtocolError("over WebRTC no audio can be appended").with_hint("Connect by WebSocket.")
    before, first_row = session.config.turn_detection, len(session.log)
    speed = _speed(paced, default=1.0)
    stream: list[Audio] = []
    sent = []
    try:
        for setting in tqdm(settings, desc="settings", disable=not progress):
            sent.append(await _stream(session, recordings, setting, stream, speed=speed))
        await session.input_audio_buffer.clear()  # its answer comes after all that was told
    finally:
        if not session.closed:
            await session.update(turn_detection=before)
            await _delete_items(session, first_row)
    told = _sorted(sent, session.log[first_row:])
    named = _deployment(session) if deployment is None else deployment
    rate_hz = session.config.input_format.rate_hz
    return await asyncio.to_thread(fit_constants, np.concatenate(stream), told, rate_hz=rate_hz, deployment=named)


# --- streaming --------------------------------------------------------------------------------------------------------


async def _stream(
    session: Session, clips: Sequence[Clip], setting: ServerVad, stream: list[Audio], *, speed: float
) -> Told:
    """Send all clips under one setting; what the service tells is not read yet."""
    threshold, silence_ms, prefix_ms = (_setting(setting, name) for name in _NAMES)
    asked = ServerVad(
        threshold=threshold,
        silence_duration_ms=int(silence_ms),
        prefix_padding_ms=int(prefix_ms),
        create_response=False,
        interrupt_response=False,
    )
    await session.update(turn_detection=asked)
    form = session.config.input_format
    at_ms = session.state.input_audio_buffer.total_bytes / form.bytes_per_ms
    if not stream:  # what was sent before is not known here: begin with the service's next frame
        await _send(session, [np.zeros(round(-at_ms % FRAME_MS * form.rate_hz / 1000), np.float32)], speed=speed)
        at_ms += -at_ms % FRAME_MS
    audio = _joined(clips, form.rate_hz, gap_ms=int(silence_ms) + _GAP_MS)
    wire = codec(form.type)
    stream.append(wire.decode(wire.encode(audio)))  # what the service hears, rounding and all
    step = ms_to_samples(CHUNK_MS, rate_hz=form.rate_hz)
    chunks = (stream[-1][position : position + step] for position in range(0, len(audio), step))
    await _send(session, chunks, speed=speed)
    start_ms = round(at_ms)
    return Told(
        threshold=threshold,
        silence_duration_ms=int(silence_ms),
        prefix_padding_ms=int(prefix_ms),
        start_ms=start_ms,
        stop_ms=start_ms + len(audio) * 1000 // form.rate_hz,
        starts_ms=(),
        stops_ms=(),
        problems=_differences(asked, session.config.turn_detection),
    )


def _setting(setting: ServerVad, name: str) -> float:
    """A setting, the service's default where it is not set."""
    value = getattr(setting, name)
    return value if isinstance(value, int | float) else float(getattr(SERVER_VAD_DEFAULTS, name))


def _joined(clips: Sequence[Clip], rate_hz: int, *, gap_ms: int) -> Audio:
    """Silence, then each clip with a gap behind it, at another rate, in whole frames."""
    gap = np.zeros(ms_to_samples(gap_ms, rate_hz=rate_hz), np.float32)
    pieces = [gap]
    for clip in clips:
        pieces += [resample(clip.audio, from_rate_hz=clip.rate_hz, to_rate_hz=rate_hz), gap]
    frame = ms_to_samples(FRAME_MS, rate_hz=rate_hz)
    pieces.append(np.zeros(-sum(map(len, pieces)) % frame, np.float32))
    return np.concatenate(pieces)


async def _delete_items(session: Session, first_row: int) -> None:
    """Delete the items that came to be from the streamed audio: the conversation is as before."""
    for row in session.log[first_row:].filter("input_audio_buffer.committed", direction="received"):
        if (item_id := getattr(row.event, "item_id", None)) in session.state.order:
            await session.conversation.item.delete(item_id)


# --- reading ----------------------------------------------------------------------------------------------------------


def _sorted(sent: Sequence[Told], log: EventLog) -> list[Told]:
    """What was told, under the setting in whose audio it lies; there is silence around each."""
    starts = [row.event.audio_start_ms for row in log.filter("input_audio_buffer.speech_started")]  # type: ignore[attr-defined]
    stops = [row.event.audio_end_ms for row in log.filter("input_audio_buffer.speech_stopped")]  # type: ignore[attr-defined]
    return [
        replace(
            one,
            starts_ms=tuple(at for at in starts if one.start_ms <= at + one.prefix_padding_ms < one.stop_ms),
            stops_ms=tuple(at for at in stops if one.start_ms < at <= one.stop_ms),
        )
        for one in sent
    ]


def _differences(asked: ServerVad, effective: Any) -> tuple[str, ...]:
    """Where the service says it has set something else."""
    where = f"threshold {asked.threshold:g}, silence {asked.silence_duration_ms} ms"
    if not isinstance(effective, ServerVad):
        return (f"refused in silence: {where}: the effective turn detection is {effective!r}",)
    names = (*_NAMES, "create_response", "interrupt_response")
    pairs = [(name, getattr(asked, name), getattr(effective, name)) for name in names]
    return tuple(f"not as asked: {where}: {name} is {has!r}" for name, want, has in pairs if has != want)


def _deployment(session: Session) -> str:
    """Host and model, without secrets."""
    facts = getattr(session._link._transport, "facts", None)
    host = urlsplit(facts.url).hostname if facts is not None and facts.url else None
    return " ".join(str(part) for part in (host, session.config.model) if part) or "unknown"


# --- one setting, one recording ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """What a service told of one recording under one setting; all times in ms of the recording."""

    starts_ms: tuple[int, ...]
    """`audio_start_ms` of each speech_started: prefix padding included."""
    stops_ms: tuple[int, ...]
    """`audio_end_ms` of each speech_stopped: silence included."""
    problems: tuple[str, ...]
    """Where the service says it has set something else."""


async def probe(session: Session, recording: Clip, setting: ServerVad, *, paced: bool | float = True) -> Probe:
    """Play a recording to a service under a setting and collect what its turn detection tells; nobody is answered.

    Afterwards the session's turn detection is as before, and the items that came to be are deleted.

    Parameters
    ----------
    session : Session
        Open, nobody speaking.
    recording : Recording
        What to play: one short clip.
    setting : ServerVad
        Threshold, silence duration and prefix padding to try.
    paced : bool or float, default True
        As for `calibrate`.

    Raises
    ------
    LocalProtocolError
        A call over WebRTC: audio cannot be streamed over its data channel.
    ServiceError
        The service refuses the setting.
    """
    if session._link.connection.webrtc:
        raise LocalProtocolError("over WebRTC no audio can be appended").with_hint("Connect by WebSocket.")
    before, first_row = session.config.turn_detection, len(session.log)
    try:
        sent = await _stream(session, [recording], setting, [], speed=_speed(paced, default=1.0))
        await session.input_audio_buffer.clear()  # its answer comes after all that was told
    finally:
        if not session.closed:
            await session.update(turn_detection=before)
            await _delete_items(session, first_row)
    (told,) = _sorted([sent], session.log[first_row:])
    zero_ms = told.start_ms + told.silence_duration_ms + _GAP_MS  # `_joined` puts so much silence first
    return Probe(
        tuple(at - zero_ms for at in told.starts_ms), tuple(at - zero_ms for at in told.stops_ms), told.problems
    )
