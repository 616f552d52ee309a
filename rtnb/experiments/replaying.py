"""Replay of the user's side of a recorded session against any target: `replay`."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, repeat
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np

from rtnb.audio import Audio, ms_to_samples
from rtnb.client import speech
from rtnb.client.response import TAG
from rtnb.client.session import Session
from rtnb.errors import ConnectionClosed, RtnbError
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, Item, SessionConfig, merge
from rtnb.targets import connect
from rtnb.trace import Trace

PAUSE_MS: Final = 500.0
"""Pieces of speech closer than this are one utterance when reacting: the user was cut off and went on (chosen)."""
PREFIX_MS: Final = 300.0
"""The service's mark of a start lies so long before the speech (default of `prefix_padding_ms`)."""
MARGIN_MS: Final = 200.0
"""Audio before and after an utterance that is sent with it (chosen)."""
QUIET_S: Final = 0.3
"""An answer is over once nothing was said or in progress for so long (chosen)."""
LONGEST_END_S: Final = 60.0
"""Longest wait for the end of the last answer (chosen: the timeout of a response)."""

LONGEST_TURN_S: Final = 10.0
"""Longest silence that is added to end the last turn (chosen: `semantic_vad` with low eagerness waits for 8 s)."""

_SKIPPED = events.ConversationItemTruncate | events.OutputAudioBufferClear  # a session sends them without being asked
_CHECK_S: Final = 0.02


async def replay(
    trace: Trace | str | os.PathLike[str],
    target: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    mode: Literal["same timing", "reacting"] = "same timing",
    path: str | os.PathLike[str] | None = None,
) -> Trace:
    """Send the user's side of a recorded session to a target, and return the recording of the new session.

    Results of function calls are taken from the trace: by name and arguments, else the next one of that function.

    Parameters
    ----------
    trace : Trace or path
        The recorded session.
    target : Target
        As for `rtnb.connect`.
    settings : mapping, optional
        Settings of the session by name, in place of the recorded ones: ``{"instructions": "Be brief."}``.
    mode : {"same timing", "reacting"}, default "same timing"
        "same timing" sends each event at its recorded distance from the first, whatever the service does; where
        a turn goes on longer than in the recording, with silence after it. "reacting"
        sends one utterance or text after the other, each once the answer to the one before was heard.
    path : path, optional
        File of the new recording; None makes a temporary one.

    Returns
    -------
    Trace
        Of the new session.

    Raises
    ------
    ValueError
        An unknown mode.
    TraceError
        The trace cannot be read.
    ConnectError, ServiceError
        As of `rtnb.connect`.

    Examples
    --------
    >>> import asyncio, os, tempfile, rtnb
    >>> path = os.path.join(tempfile.mkdtemp(), "talk.rtnb")
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble", trace=path) as session:
    ...         await session.ask("Hello!")
    >>> asyncio.run(talk())
    >>> again = asyncio.run(rtnb.replay(path, "sim", settings={"instructions": "Be brief."}))
    >>> [turn.role for turn in again.turns]
    ['user', 'assistant']
    """
    if mode not in ("same timing", "reacting"):
        raise ValueError(f"mode is {mode!r}; allowed are 'same timing' and 'reacting'")
    kept = trace if isinstance(trace, Trace) else Trace(trace)
    wanted = SessionConfig.of(**(settings or {}))
    folder = None if path is not None else TemporaryDirectory(ignore_cleanup_errors=True)
    file = os.path.join(folder.name, "replay.rtnb") if folder is not None else os.fspath(path or "")
    first, begin_s, config = _opening(kept)
    async with connect(target, config=merge(config, wanted), trace=file) as session:
        tools = asyncio.create_task(_answer_calls(session, _results(kept)), name="rtnb replay tools")
        try:
            if mode == "reacting":
                await _react(session, kept, first, wanted)
            else:
                await _repeat(session, kept, first, begin_s, wanted)
        finally:
            tools.cancel()
            await asyncio.gather(tools, return_exceptions=True)
    made = Trace(file)
    if folder is not None:
        weakref.finalize(made, folder.cleanup)
    return made


def _opening(trace: Trace) -> tuple[int, float, SessionConfig]:
    """Return the first row after the setup, the time at which the first settings were in force, and those settings."""
    config, ready_s = None, 0.0
    for row in trace.log:
        if isinstance(row.event, events.SessionUpdate) and config is None:
            config = row.event.session
        elif row.direction == "sent":
            return row.number, ready_s, config or SessionConfig()
        elif isinstance(row.event, events.SessionCreated | events.SessionUpdated):
            ready_s = row.monotonic_s
    return 2**63, ready_s, config or SessionConfig()


# --- same timing ------------------------------------------------------------------------------------------------------


async def _repeat(session: Session, trace: Trace, first: int, begin_s: float, wanted: SessionConfig) -> None:
    loop, tasks, after_call = asyncio.get_running_loop(), set[asyncio.Task[Any]](), False
    offset_s, last_s = loop.time() - begin_s, begin_s
    sent_s = [row.monotonic_s for row in trace.log if row.type == "input_audio_buffer.append"]
    pauses = iter([*(later - earlier for earlier, later in pairwise(sent_s)), LONGEST_TURN_S])
    silence: asyncio.Task[None] | None = None
    for row in trace.rows():
        last_s = row.monotonic_s
        if row.number < first or row.direction != "sent":
            continue
        await asyncio.sleep(row.monotonic_s + offset_s - loop.time())
        event: Any = row.event
        if isinstance(event, events.InputAudioBufferAppend):
            await _end(silence)
            await session.send(replace(event, event_id=UNSET))
            silence = asyncio.create_task(_go_on(session, next(pauses)))
            continue
        is_output = isinstance(event, events.ConversationItemCreate) and event.item.type == "function_call_output"
        if isinstance(event, events.ResponseCreate) and not after_call:
            work: Any = session.response.create(_without_tag(event.response))
        elif isinstance(event, events.ResponseCancel):
            work = session.interrupt()
        elif is_output or isinstance(event, _SKIPPED | events.ResponseCreate):
            after_call = is_output
            continue
        else:
            if isinstance(event, events.SessionUpdate):
                event = replace(event, session=merge(event.session, wanted))
            await session.send(replace(event, event_id=UNSET))
            continue
        tasks.add(asyncio.create_task(work))
    await asyncio.sleep(last_s + offset_s - loop.time())
    if silence is not None:
        await silence
    await _answered(session)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # refusals are in the new recording


async def _go_on(session: Session, pause_s: float) -> None:
    """Send silence, as a microphone does, while a turn is in progress that had ended here in the recording."""
    chunk = np.zeros(ms_to_samples(speech.CHUNK_MS, rate_hz=session.config.input_format.rate_hz), np.float32)
    chunks = repeat(chunk, max(0, int(1000 * pause_s / speech.CHUNK_MS) - 1))
    with suppress(ConnectionClosed):
        await speech.send_audio(session._dispatcher, chunks, speed=1.0, until=lambda: not _in_turn(session))


def _in_turn(session: Session) -> bool:
    return session.state.input_audio_buffer.speech_item_id is not None


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _without_tag(config: Any) -> Any:
    if not config or not config.metadata:
        return config or None
    return replace(config, metadata={name: value for name, value in config.metadata.items() if name != TAG})


async def _answered(session: Session) -> None:
    """Wait until no response is in progress and none is being played."""
    quiet_s = waited_s = 0.0
    while quiet_s < QUIET_S and waited_s < LONGEST_END_S and not session.closed:
        await asyncio.sleep(_CHECK_S)
        playing = session.playback.playing
        quiet_s = 0.0 if playing or session.state.active_response_id is not None else quiet_s + _CHECK_S
        waited_s += 0.0 if playing else _CHECK_S


# --- reacting ---------------------------------------------------------------------------------------------------------


async def _react(session: Session, trace: Trace, first: int, wanted: SessionConfig) -> None:
    for row in trace.log:
        if row.number >= first and row.direction == "sent":
            if not isinstance(row.event, events.SessionUpdate):
                break
            await session.update(merge(row.event.session, wanted))  # tools have their own update
    for text, audio in _utterances(trace):
        if audio is None:
            await session.ask(text)
        else:
            detection = session.config.turn_detection
            answers = not detection or getattr(detection, "create_response", UNSET) in (UNSET, True)
            await session.say(audio, rate_hz=24_000, respond=answers)
        await _answered(session)


def _utterances(trace: Trace) -> Iterator[tuple[str, Audio | None]]:
    """Yield the user's messages: a text, or speech as it was sent."""
    track, spoken = trace.user_audio, list[tuple[float, float]]()
    committed = {row.event.item_id for row in trace.log if isinstance(row.event, events.InputAudioBufferCommitted)}
    answers = [turn.start_ms for turn in trace.turns if turn.role == "assistant" and turn.has_audio]
    before_ms = 0.0
    for turn in [*(turn for turn in trace.turns if turn.role == "user"), None]:
        is_speech = turn is not None and track is not None and turn.item_id in committed
        if turn is not None and is_speech:
            start_ms, stop_ms = (turn.start_ms, turn.stop_ms) if turn.has_audio else (before_ms, turn.start_ms)
            before_ms = stop_ms
            answered = any(spoken and spoken[-1][1] <= at_ms < start_ms + PREFIX_MS for at_ms in answers)
            if spoken and start_ms - spoken[-1][1] < PAUSE_MS and not answered:
                spoken[-1] = spoken[-1][0], stop_ms
                continue
        if spoken and track is not None:
            yield "", track.read(max(0.0, spoken[0][0] - MARGIN_MS), spoken[0][1] + MARGIN_MS)
            spoken.clear()
        if turn is not None and is_speech:
            spoken.append((start_ms, stop_ms))
        elif turn is not None:
            yield turn.text, None


# --- function calls ---------------------------------------------------------------------------------------------------


def _results(trace: Trace) -> list[tuple[str, str, str]]:
    """Return name, arguments and result of each function call in the trace, in order."""
    calls: dict[str, Item] = {}
    found = []
    for row in trace.log:
        item: Any = getattr(row.event, "item", None)
        if item is not None and item.type == "function_call" and item.arguments:
            calls[item.call_id] = item
        elif row.direction == "sent" and item is not None and item.call_id in calls:
            call = calls[item.call_id]
            found.append((str(call.name), str(call.arguments), str(item.output)))
    return found


async def _answer_calls(session: Session, results: list[tuple[str, str, str]]) -> None:
    async for event in session:
        if not isinstance(event, events.ResponseDone):
            continue
        calls = [item for item in event.response.output or () if item.type == "function_call"]
        for call in calls:
            same = [one for one in results if one[:2] == (call.name, call.arguments)]
            fitting = same or [one for one in results if one[0] == call.name]
            output = fitting[0][2] if fitting else "error: the trace has no result of this function"
            if fitting:
                results.remove(fitting[0])
            await session.conversation.item.create(
                Item(type="function_call_output", call_id=call.call_id, output=output)
            )
        if calls:
            with suppress(RtnbError):  # a refusal is in the new recording
                await session.response.create()
