"""Calibration of the local VAD model: stream recordings to a service under several settings, and fit its events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
from tqdm.auto import tqdm

from rtnb.analysis.calibration import Calibration, Observed, fit_constants
from rtnb.analysis.sweeping import setting_of
from rtnb.audio import Audio, codec, ms_to_samples, resample
from rtnb.client.log import EventLog
from rtnb.client.session import Session
from rtnb.errors import AudioError, LocalProtocolError
from rtnb.protocol.values import ServerVad
from rtnb.vad import FRAME_MS

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
"""Thresholds, silences and prefixes whose effects can be distinguished; 200 and 500 ms round differently (chosen)."""
_NAMES = ("threshold", "silence_duration_ms", "prefix_padding_ms")
_GAP_MS = 800
"""Silence after each clip beyond the silence duration: longer than the delay of any start or stop (chosen)."""


class Clip(Protocol):
    """Samples and their rate, as `rtnb.analysis.recordings.Recording` has them."""

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
    """Measure how a service's server VAD differs from the local model.

    The recordings are streamed once under each setting, with `create_response` and `interrupt_response` off: the
    service reports starts and stops of speech, and creates no response. The local model is fitted to these events.
    Afterwards the session's turn detection is as before, and the new items are deleted. Use a new session: only then
    do service and model get the same audio from the first sample on.

    Parameters
    ----------
    session : Session
        Open and silent.
    recordings : sequence of Recording
        10 to 20 short clips with pauses; more clips give sharper constants, and at least 2 are needed to check the fit
        out of sample. Labels are not needed.
    settings : sequence of ServerVad
        Tried one after another. Default: six whose effects can be distinguished.
    paced : bool or float, default True
        True streams in real time, as services expect; a number that many times faster; False at once, for simulators.
    deployment : str, optional
        Names the service. Default: its host and model.
    progress : bool, default True
        Show a bar.

    Returns
    -------
    Calibration
        With `constants` for `rtnb.sweep`; `save` writes it to a file for this deployment.

    Raises
    ------
    AudioError
        No recordings, or too few starts and stops to identify anything.
    LocalProtocolError
        A call over WebRTC: audio cannot be streamed over its data channel.
    ServiceError
        The service refuses a setting.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def measure():
    ...     simulator = rtnb.Simulator(latency="fast", voice="babble")
    ...     speech = [simulator.speech(text).audio for text in ("One", "Two")]
    ...     clips = [rtnb.Recording.of_one_turn(audio, rate_hz=24_000) for audio in speech]
    ...     async with rtnb.connect(simulator) as session:
    ...         return await rtnb.calibrate(session, clips, paced=False, progress=False)
    >>> asyncio.run(measure()).constants.min_speech_frames
    1
    """
    if not recordings:
        raise AudioError("no recordings to calibrate with").with_hint("Give a few short clips of speech with pauses.")
    if session.webrtc:
        raise LocalProtocolError("over WebRTC no audio can be appended").with_hint("Connect by WebSocket.")
    bar = tqdm(settings, desc="settings", disable=not progress)
    stream, observed = await _observe(session, recordings, bar, paced=paced)
    named = _deployment(session) if deployment is None else deployment
    rate_hz = session.config.input_format.rate_hz
    return await asyncio.to_thread(fit_constants, np.concatenate(stream), observed, rate_hz=rate_hz, deployment=named)


# --- streaming --------------------------------------------------------------------------------------------------------


async def _observe(
    session: Session, clips: Sequence[Clip], settings: Iterable[ServerVad], *, paced: bool | float
) -> tuple[list[Audio], list[Observed]]:
    """Stream clips under each setting; return the audio and the observed events, and leave the session as it was."""
    before, first = session.config.turn_detection, session.log.next_number
    stream: list[Audio] = []
    sent = []
    try:
        for setting in settings:
            sent.append(await _stream(session, clips, setting, stream, paced=paced))
        await session.input_audio_buffer.clear()  # its reply comes after all other events
    finally:
        if not session.closed:
            await session.update(turn_detection=before)
            await _delete_items(session, first)
    return stream, _sorted(sent, session.log.since(first))


async def _stream(
    session: Session, clips: Sequence[Clip], setting: ServerVad, stream: list[Audio], *, paced: bool | float
) -> Observed:
    """Send all clips under one setting; the events of the service are read later."""
    threshold, silence_ms, prefix_ms = (setting_of(setting, name) for name in _NAMES)
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
    if not stream:  # earlier audio is not known here: begin with the service's next frame
        await session.input_audio_buffer.append(np.zeros(round(-at_ms % FRAME_MS * form.rate_hz / 1000), np.float32))
        at_ms += -at_ms % FRAME_MS
    audio = _joined(clips, form.rate_hz, gap_ms=int(silence_ms) + _GAP_MS)
    wire = codec(form.type)
    stream.append(wire.decode(wire.encode(audio)))  # the audio after the rounding of its format
    await session.say(audio, rate_hz=form.rate_hz, paced=paced, respond=False, trailing_silence_ms=0)
    start_ms = round(at_ms)
    return Observed(
        threshold=threshold,
        silence_duration_ms=int(silence_ms),
        prefix_padding_ms=int(prefix_ms),
        start_ms=start_ms,
        stop_ms=start_ms + len(audio) * 1000 // form.rate_hz,
        starts_ms=(),
        stops_ms=(),
        clips_ms=_begin(clips, start_ms, gap_ms=int(silence_ms) + _GAP_MS),
        problems=_differences(asked, session.config.turn_detection),
    )


def _joined(clips: Sequence[Clip], rate_hz: int, *, gap_ms: int) -> Audio:
    """Return silence, then each clip with a gap behind it, at another rate, in whole frames."""
    gap = np.zeros(ms_to_samples(gap_ms, rate_hz=rate_hz), np.float32)
    pieces = [gap]
    for clip in clips:
        pieces += [resample(clip.audio, from_rate_hz=clip.rate_hz, to_rate_hz=rate_hz), gap]
    frame = ms_to_samples(FRAME_MS, rate_hz=rate_hz)
    pieces.append(np.zeros(-sum(map(len, pieces)) % frame, np.float32))
    return np.concatenate(pieces)


def _begin(clips: Sequence[Clip], start_ms: int, *, gap_ms: int) -> tuple[int, ...]:
    """Return where each clip of `_joined` begins, in ms of the stream."""
    lengths_ms = [gap_ms + len(clip.audio) * 1000 / clip.rate_hz for clip in clips]
    return tuple(round(start_ms + gap_ms + sum(lengths_ms[:number])) for number in range(len(clips)))


async def _delete_items(session: Session, first: int) -> None:
    """Delete the items that the streamed audio made."""
    for row in session.log.since(first).filter("input_audio_buffer.committed", direction="received"):
        if (item_id := getattr(row.event, "item_id", None)) in session.state.order:
            await session.conversation.item.delete(item_id)


# --- reading ----------------------------------------------------------------------------------------------------------


def _sorted(sent: Sequence[Observed], log: EventLog) -> list[Observed]:
    """Return the observed events under the setting in whose audio they lie; there is silence around each."""
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
    """Return where the settings in force differ from the requested ones."""
    where = f"threshold {asked.threshold:g}, silence {asked.silence_duration_ms} ms"
    if not isinstance(effective, ServerVad):
        return (f"refused without an error: {where}: the effective turn detection is {effective!r}",)
    names = (*_NAMES, "create_response", "interrupt_response")
    pairs = [(name, getattr(asked, name), getattr(effective, name)) for name in names]
    return tuple(f"not as requested: {where}: {name} is {has!r}" for name, want, has in pairs if has != want)


def _deployment(session: Session) -> str:
    """Return host and model, without secrets."""
    facts = getattr(session.transport, "facts", None)
    host = urlsplit(facts.url).hostname if facts is not None and facts.url else None
    return " ".join(str(part) for part in (host, session.config.model) if part) or "unknown"


# --- one setting, one recording ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """Events of a service for one recording under one setting; all times in ms of the recording."""

    starts_ms: tuple[int, ...]
    """`audio_start_ms` of each speech_started: prefix padding included."""
    stops_ms: tuple[int, ...]
    """`audio_end_ms` of each speech_stopped: silence included."""
    problems: tuple[str, ...]
    """Where the settings in force differ from the requested ones."""


async def probe(session: Session, recording: Clip, setting: ServerVad, *, paced: bool | float = True) -> Probe:
    """Stream a recording to a service under a setting and return the events of its turn detection.

    The service creates no response. Afterwards the turn detection is as before, and the new items are deleted.

    Parameters
    ----------
    session : Session
        Open and silent.
    recording : Recording
        One short clip.
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
    if session.webrtc:
        raise LocalProtocolError("over WebRTC no audio can be appended").with_hint("Connect by WebSocket.")
    _, (observed,) = await _observe(session, [recording], [setting], paced=paced)
    zero_ms = observed.start_ms + observed.silence_duration_ms + _GAP_MS  # the silence that `_joined` puts first
    starts_ms, stops_ms = (tuple(at - zero_ms for at in times) for times in (observed.starts_ms, observed.stops_ms))
    return Probe(starts_ms, stops_ms, observed.problems)
