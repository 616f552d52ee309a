"""Recording of a session: `keep` while it runs, `save_trace` afterwards from its log."""

from __future__ import annotations

import logging
import os
import platform
import sys
import weakref
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rtnb.client.log import LogRow
from rtnb.errors import RtnbError
from rtnb.redaction import redact
from rtnb.trace.file import MAX_BYTES, PART, TraceWriter, write_trace
from rtnb.trace.rules import findings

if TYPE_CHECKING:
    from rtnb.client.session import Session

FLUSH_S: Final = 0.75
"""Longest time that an event waits to be written (chosen: a killed kernel loses less than a second)."""

_log = logging.getLogger("rtnb")


class _Recorder:
    """Writer of a session's rows; it holds no reference to the session, which can be collected."""

    def __init__(self, session: Session, target: Path, max_bytes: int) -> None:
        self._target = target
        part = target.with_name(target.name + PART)
        self._writer = TraceWriter(part, _manifest(session), max_bytes=max_bytes)
        self._playback, self._loop = session.playback, session.loop
        self._marked: Any = None
        self._rows: list[LogRow] = list(session.log)
        self._unsubscribe = session.log.subscribe(self._rows.append)
        self._timer = self._loop.call_later(0.0, self._tick)
        session.on_close(self._close)

    def _tick(self) -> None:
        try:
            self._write()
        except (OSError, RtnbError) as error:
            self._unsubscribe()
            _log.error("the recording of %s has stopped: %s", self._target, error)
        else:
            self._timer = self._loop.call_later(FLUSH_S, self._tick)

    def _write(self) -> None:
        rows = self._rows[:]
        del self._rows[: len(rows)]
        for row in rows:
            self._writer.add(row)
        if (newest := self._playback.newest) is not None and newest != self._marked:
            self._marked, (track, at_s) = newest, newest
            self._writer.mark(track.item_id, track.reported_ms or 0.0, at_s)
        self._writer.flush()

    async def _close(self) -> None:
        self._timer.cancel()
        self._unsubscribe()
        try:
            self._write()
            await self._loop.run_in_executor(None, self._writer.finish, self._target)
        except OSError as error:
            _log.error("the recording is left in %s: %s", self._writer.folder, error)


async def keep(session: Session, path: str | os.PathLike[str] | None = None, max_bytes: int | None = None) -> Session:
    """Return a session that was just opened, with `save_trace` and `findings`; with a path it is recorded to its end.

    Parameters
    ----------
    session : Session
        Just opened.
    path : path, optional
        The file; ``{time}`` in it stands for the local time, and a folder gets files named by it. A file that is there
        is replaced at the end of the session.
    max_bytes : int, default 2 GiB
        Bound of the recording.

    Raises
    ------
    TraceError
        The file cannot be written; the session is closed again.
    """
    session.save_trace = partial(save_trace, weakref.proxy(session))
    session.findings = partial(findings, weakref.proxy(session))
    if path is not None:
        try:
            _Recorder(session, _target_path(path), MAX_BYTES if max_bytes is None else max_bytes)
        except BaseException:
            await session.close()
            raise
    return session


def save_trace(session: Session, path: str | os.PathLike[str]) -> Path:
    """Write what the log of a session still holds as a trace.

    The manifest's `dropped` and `notes` say what the log had dropped before.
    """
    target, log = _target_path(path), session.log
    dropped, notes = log.dropped, []
    if dropped:
        notes.append(
            f"saved afterwards from the log, which had dropped {dropped.events} events and the audio of older ones "
            f"({dropped.audio_bytes} bytes)"
        )
    facts = {"notes": notes, "dropped": {"events": dropped.events}}
    write_trace(target, _manifest(session) | facts, (*log.context, *log), {})
    return target


def _target_path(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if text.endswith(("/", os.sep)) or os.path.isdir(text):
        text = os.path.join(text, "{time}.rtnb")
    return Path(text.replace("{time}", datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")))  # several in a second


def _manifest(session: Session) -> dict[str, Any]:
    facts: Any = getattr(session.transport, "facts", None)
    first = next(iter((*session.log.context, *session.log)), None)
    return {
        "rtnb": sys.modules["rtnb"].__version__,
        "python": platform.python_version(),
        "target": {} if facts is None else {"service": facts.service, "url": redact(facts.url), "model": facts.model},
        "dialect": session.dialect,
        "webrtc": session.webrtc,
        "clock": {} if first is None else {"monotonic_s": first.monotonic_s, "wall_time": first.wall_time},
        "audible": ["the user", "the model"],
    }
