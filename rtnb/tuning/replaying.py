"""Replay of the user's side of a recorded session against any target: `replay`."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from itertools import pairwise, repeat
from math import inf
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np

from rtnb.audio import ms_to_samples
from rtnb.client import speech
from rtnb.client.session import Session
from rtnb.client.tools import ToolBox
from rtnb.errors import ConnectionClosed
from rtnb.experiments import Case
from rtnb.experiments.conversation import converse, until_played
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, Item, SessionConfig, merge
from rtnb.targets import connect
from rtnb.trace import Trace

LONGEST_TURN_S: Final = 10.0
"""Longest silence that is added to end the last turn (chosen: `semantic_vad` with low eagerness waits for 8 s)."""

QUIET_S: Final = 0.3
"""Time in which the last answer begins (chosen)."""


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
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    file = os.path.join(folder.name, "replay.rtnb") if path is None else os.fspath(path)
    reacting = mode == "reacting"
    first, begin_s, config = _opening(kept, most=inf if reacting else 1)
    async with connect(target, config=merge(config, wanted), trace=file) as session:
        session.tools.box = _Recorded(kept)
        if reacting:
            await converse(session, Case(**kept.to_case(folder.name)).user, None)
        else:
            await _repeat(session, kept, first, begin_s, wanted)
    made = Trace(file)
    weakref.finalize(made, folder.cleanup)
    return made


def _opening(trace: Trace, *, most: float) -> tuple[int, float, SessionConfig]:
    """Return the first row after a setup of so many updates, the time at which it was in force, and its settings."""
    updates, ready_s = list[SessionConfig](), 0.0
    for row in trace.log:
        if isinstance(row.event, events.SessionUpdate) and len(updates) < most:
            updates.append(row.event.session)
        elif row.direction == "sent":
            return row.number, ready_s, reduce(merge, updates, SessionConfig())
        elif isinstance(row.event, events.SessionCreated | events.SessionUpdated):
            ready_s = row.monotonic_s
    return 2**63, ready_s, reduce(merge, updates, SessionConfig())


# --- same timing ------------------------------------------------------------------------------------------------------


async def _repeat(session: Session, trace: Trace, first: int, begin_s: float, wanted: SessionConfig) -> None:
    loop, after_call = asyncio.get_running_loop(), False
    offset_s, last_s = loop.time() - begin_s, begin_s
    sent_s = [row.monotonic_s for row in trace.log if row.type == "input_audio_buffer.append"]
    pauses = iter([*(later - earlier for earlier, later in pairwise(sent_s)), LONGEST_TURN_S])
    silence = asyncio.create_task(asyncio.sleep(0))
    for row in trace.rows():
        last_s = row.monotonic_s
        if row.number < first or row.direction != "sent":
            continue
        await asyncio.sleep(row.monotonic_s + offset_s - loop.time())
        event: Any = replace(row.event, event_id=UNSET)
        is_output = isinstance(event, events.ConversationItemCreate) and event.item.type == "function_call_output"
        match event:
            case events.InputAudioBufferAppend():
                silence.cancel()
                await asyncio.gather(silence, return_exceptions=True)
                await session.send(event)
                silence = asyncio.create_task(_go_on(session, next(pauses)))
            case events.ResponseCancel():
                await session.send(replace(event, response_id=UNSET))
            case events.SessionUpdate():
                await session.send(replace(event, session=merge(event.session, wanted)))
            case events.ConversationItemTruncate() | events.OutputAudioBufferClear():
                pass  # the session sends its own
            case _ if not is_output and not (after_call and isinstance(event, events.ResponseCreate)):
                await session.send(event)
        after_call = is_output
    await asyncio.sleep(last_s + offset_s - loop.time())
    await silence
    await asyncio.sleep(QUIET_S)
    await until_played(session)


async def _go_on(session: Session, pause_s: float) -> None:
    """Send silence, as a microphone does, while a turn is in progress that had ended here in the recording."""
    chunk = np.zeros(ms_to_samples(speech.CHUNK_MS, rate_hz=session.config.input_format.rate_hz), np.float32)
    chunks = repeat(chunk, max(0, int(1000 * pause_s / speech.CHUNK_MS) - 1))

    def is_over() -> bool:
        return session.state.input_audio_buffer.speech_item_id is None

    with suppress(ConnectionClosed):
        await speech.send_audio(session._dispatcher, chunks, speed=1.0, until=is_over)


# --- function calls ---------------------------------------------------------------------------------------------------


class _Recorded(ToolBox):
    """Functions whose results come from a trace: by name and arguments, else the next one of that function."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._results: list[tuple[str, str, str]] = []
        calls: dict[str, Item] = {}
        for row in trace.log:
            item: Any = getattr(row.event, "item", None)
            if item is not None and item.type == "function_call" and item.arguments:
                calls[item.call_id] = item
            elif row.direction == "sent" and item is not None and item.call_id in calls:
                call = calls[item.call_id]
                self._results.append((str(call.name), str(call.arguments), str(item.output)))
        self.functions = {name: repr for name, *_ in self._results}

    async def run(self, name: str, arguments: str) -> str:
        """Return the recorded result."""
        fitting = sorted((one for one in self._results if one[0] == name), key=lambda one: one[1] != arguments)
        if not fitting:
            return "error: the trace has no result of this function"
        self._results.remove(fitting[0])
        return fitting[0][2]
