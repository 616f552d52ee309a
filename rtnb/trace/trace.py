"""A recorded session that is opened again: `Trace`."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import import_module
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from rtnb.analysis.cost import CostMeter
from rtnb.analysis.latency import LatencyMeter
from rtnb.audio import Audio
from rtnb.client.log import EventLog, LogRow, without_audio
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.protocol.values import SessionConfig
from rtnb.trace.conversation import Entries, Entry, ids_of, to_text
from rtnb.trace.export import export, to_case
from rtnb.trace.file import TraceFile, write_trace
from rtnb.trace.interaction import Interaction
from rtnb.trace.privacy import Redaction
from rtnb.trace.report import to_html
from rtnb.trace.rules import findings
from rtnb.trace.timeline import Timeline, Track

_CONFIRMED = events.SessionCreated | events.SessionUpdated
_PLACING = _CONFIRMED | events.ConversationItemTruncate | events.InputAudioBufferSpeechStarted
"""Events outside of a part that its clock needs."""


class Trace(AbstractContextManager["Trace"]):
    """A recorded session: events, audio, turns and settings on one clock, in ms since its first event.

    Everything is read when it is asked for. Nothing in the file is executed, and it needs no service. A recording that
    did not end is opened from its folder, ``talk.rtnb.part``; ``manifest["complete"]`` is false then.

    Parameters
    ----------
    source : path
        The file.

    Raises
    ------
    TraceError
        No such file, not a trace, damaged, of another version, or not safe to open.

    Examples
    --------
    >>> import asyncio, os, tempfile, rtnb
    >>> path = os.path.join(tempfile.mkdtemp(), "talk.rtnb")
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble", trace=path) as session:
    ...         await session.ask("Hello!")
    >>> asyncio.run(talk())
    >>> trace = rtnb.Trace(path)
    >>> [turn.role for turn in trace.turns]
    ['user', 'assistant']
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        self._file = TraceFile(source)
        self.manifest: dict[str, Any] = self._file.manifest
        """Facts about the session: version, target, settings over time; ``tracks`` says why a track is missing."""
        self._zero_ms, self._stop_ms = self._file.start_ms, self._file.stop_ms

    # --- events -------------------------------------------------------------------------------------------------------

    @cached_property
    def _content(self) -> tuple[list[LogRow], dict[str, tuple[float, float]]]:
        return self._file.read()

    def rows(self) -> Iterator[LogRow]:
        """Yield every row, also those that `cut` left out; audio of earlier ones does not stay in memory."""
        self._file.check()
        for row in self._content[0]:
            yield row
            if row.number % 1000 == 0:
                self._file.release()

    @cached_property
    def log(self) -> EventLog:
        """Every event, without secrets; its audio is read from the file where it is used."""
        rows, _ = self._content
        log = EventLog.of(rows, start_s=self._start_s + self._zero_ms / 1000)
        if self._stop_ms == inf:
            return log
        inside = [row.number for row in rows if self._is_inside(self._timeline.ms(row))]
        return log[inside[0] : inside[-1] + 1] if inside else log[:0]

    @property
    def events(self) -> EventLog:
        """The same as `log`: ``trace.events.to_frame()`` is a table."""
        return self.log

    # --- the clock ----------------------------------------------------------------------------------------------------

    @property
    def _start_s(self) -> float:
        return next((row.monotonic_s for row in self._content[0]), 0.0)

    @cached_property
    def _timeline(self) -> Timeline:
        timeline = Timeline(most_bytes=0)
        for row in self._content[0]:
            timeline.add(row)
        return timeline

    def _is_inside(self, start_ms: float, stop_ms: float | None = None) -> bool:
        return start_ms <= self._stop_ms and (start_ms if stop_ms is None else stop_ms) >= self._zero_ms

    @cached_property
    def duration_ms(self) -> float:
        """Time from the first event to the last event or the end of the audio."""
        return (self._timeline.stop_ms if self._stop_ms == inf else self._stop_ms) - self._zero_ms

    def time_of(self, row: LogRow) -> float:
        """Return the time of an event on the clock of the trace, ms."""
        return self._timeline.ms(row) - self._zero_ms

    def cut(self, start_ms: float, stop_ms: float) -> Trace:
        """Return a part of the trace, whose clock begins at `start_ms`."""
        if not 0 <= start_ms < stop_ms:
            raise TraceError(f"cannot cut from {start_ms:g} to {stop_ms:g} ms; allowed: 0 ≤ start < stop")
        part = object.__new__(type(self))
        part._file, part.manifest = self._file, self.manifest
        part._content, part._timeline = self._content, self._timeline
        part._zero_ms = self._zero_ms + start_ms
        part._stop_ms = self._zero_ms + min(stop_ms, self.duration_ms)
        return part

    # --- what was said ------------------------------------------------------------------------------------------------

    @cached_property
    def turns(self) -> list[Entry]:
        """The messages of the conversation, in order, on the clock of the trace."""
        entries = Entries(self._timeline)
        for row in self._content[0]:
            entries.add(row)
        turns = [turn for turn in entries.timed() if self._is_inside(turn.start_ms, max(turn.stop_ms, turn.start_ms))]
        for turn in turns:
            turn.start_ms -= self._zero_ms
            turn.stop_ms = max(turn.start_ms, turn.stop_ms - self._zero_ms)
        return turns

    @property
    def transcript(self) -> str:
        """Text with a paragraph per message; words that were not played are in brackets."""
        return to_text(self.turns)

    # --- audio --------------------------------------------------------------------------------------------------------

    def _track(self, *names: str, starts_ms: dict[str, float] | None = None) -> Track | None:
        times = {"duration_ms": self.duration_ms, "zero_ms": self._zero_ms}
        return self._timeline.track(*names, audio=self._file.audio, starts_ms=starts_ms, **times)

    @cached_property
    def user_audio(self) -> Track | None:
        """Audio that was sent; None where there is none: ``manifest["tracks"]`` says why."""
        return self._track("you")

    @cached_property
    def model_audio(self) -> Track | None:
        """Audio that was received, with the part that was not heard."""
        return self._track("model", "unheard")

    @cached_property
    def heard_audio(self) -> Track | None:
        """Audio of the model as it was played: cut where the user interrupted it."""
        _, played = self._content
        starts = {name: 1000 * (at_s - self._start_s) - ms for name, (at_s, ms) in played.items()}
        return self._track("model", starts_ms=starts)

    def stereo(self) -> Audio:
        """Return the user (left) and the model as it was played (right).

        Returns
        -------
        audio : ndarray, float32, shape (n_samples, 2)
            24 kHz; for hours of audio read the tracks in parts.
        """
        silence = Track(self._file.audio, (), duration_ms=self.duration_ms)
        return np.stack([(self.user_audio or silence)[:], (self.heard_audio or silence)[:]], axis=1)

    # --- settings and measures ----------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> list[tuple[float, SessionConfig]]:
        """Time in ms and settings, each time that the service confirmed them."""
        confirmed = ((row, row.event) for row in self._content[0])
        return [(self.time_of(row), event.session) for row, event in confirmed if isinstance(event, _CONFIRMED)]

    def settings_at(self, t_ms: float) -> SessionConfig:
        """Return the settings in force at a time; before the first ones they are empty."""
        return next((config for at_ms, config in reversed(self.settings) if at_ms <= t_ms), SessionConfig())

    @cached_property
    def interaction(self) -> Interaction:
        """Measures of the interaction: see `rtnb.interaction`."""
        return interaction(self)

    @cached_property
    def latency(self) -> LatencyMeter:
        """Latency of each answer, as of a live session."""
        meter = LatencyMeter()
        meter.feed(self.rows())
        meter.turns = [turn for turn in meter.turns if self._is_inside(1000 * (turn.start_s - self._start_s))]
        return meter

    @cached_property
    def cost(self) -> CostMeter:
        """Tokens and estimated dollars."""
        meter = CostMeter()
        meter.feed(row for row in self._content[0] if self._is_inside(self._timeline.ms(row)))
        return meter

    # --- copies -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a file: a recording that did not end, or the part that `cut` left.

        Of a part, answers at its edges are kept whole; audio and events outside are left out.
        """
        write_trace(Path(path), *self._kept())

    def redacted(
        self, *, audio: Literal["silence", "tone"] | None = None, text: Callable[[str], str] | None = None
    ) -> Trace:
        """Return a copy with other audio and other texts; times and lengths stay.

        Parameters
        ----------
        audio : {"silence", "tone"}, optional
            Replacement of both sides' audio; None keeps it.
        text : callable, optional
            str -> str, applied to every transcript, message, instruction, argument and result; None keeps them.
        """
        manifest, rows, played = self._kept()
        manifest["notes"] = [f"redacted: audio {audio or 'kept'}, texts {'kept' if text is None else 'replaced'}"]
        manifest["audible"] = manifest.get("audible", []) if audio is None else []
        return _temporary(manifest, map(Redaction(audio, text), rows), played)

    def _kept(self) -> tuple[dict[str, Any], Iterator[LogRow], dict[str, tuple[float, float]]]:
        """Return manifest, rows and reports of speakers, without what `cut` left out."""
        window_ms = None if self._stop_ms == inf else (self._zero_ms, self._stop_ms)
        return self.manifest | {"window_ms": window_ms}, self._kept_rows(), self._content[1]

    def _kept_rows(self) -> Iterator[LogRow]:
        shown = {id for turn in self.turns for id in (turn.item_id, turn.response_id) if id}
        timeline = Timeline(most_bytes=0)
        for row in self.rows():
            piece = timeline.add(row)
            near = self._is_inside(timeline.ms(row)) or not shown.isdisjoint(ids_of(row.event))
            if near or (piece is not None and self._is_inside(piece.start_ms, piece.stop_ms)):
                yield row
            elif piece is not None or isinstance(row.event, _PLACING):
                event, n_bytes = without_audio(row.event)
                yield row._replace(event=event, audio_dropped_bytes=n_bytes or row.audio_dropped_bytes)

    # --- views --------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(str(self._file.name)).name

    findings = findings
    to_html = to_html
    export = export
    to_case = to_case

    def _repr_mimebundle_(self, **options: Any) -> Any:
        # The widget lies above this room, so it is looked up only where a cell shows a trace.
        return self._player._repr_mimebundle_(**options)

    @cached_property
    def _player(self) -> Any:
        return import_module("rtnb.widgets").TracePlayer(self)

    def __repr__(self) -> str:
        end = "" if self.manifest.get("complete") else ", the recording did not end"
        return f"<Trace {self._file.name}: {self.duration_ms / 1000:.1f} s, {len(self.turns)} turns{end}>"

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def __exit__(self, *raised: object) -> None:
        self.close()


def interaction(source: Any, **options: Any) -> Interaction:
    """Measure the interaction in a session: responses, interruptions, yields, backchannels, overlaps.

    The user's track is the audio that was sent, the agent's the audio as it was played: interrupted answers end where
    they were cut.

    Parameters
    ----------
    source : Session, EventLog or Trace
        Of a session, what its log still holds.
    **options
        `labels`, `tick_s` and `gap_s` of `Interaction.of_tracks`.

    Returns
    -------
    Interaction
        ``.metrics()`` and ``.to_frame()`` are tables, ``.plot()`` draws both tracks with each event.

    Raises
    ------
    AudioError
        No audio of either side, or more than an hour.

    Examples
    --------
    >>> import rtnb
    >>> async def measure():
    ...     async with rtnb.connect("sim", latency="fast") as session:
    ...         await session.say(rtnb.audio.babble("hello there").audio, rate_hz=24_000, paced=False)
    ...         return rtnb.interaction(session)
    >>> import asyncio
    >>> asyncio.run(measure()).user.shape[0] > 0
    True
    """
    if isinstance(source, Trace):
        return Interaction.of_sides(source.user_audio, source.heard_audio, **options)
    log, timeline = getattr(source, "log", source), Timeline(most_bytes=inf)
    start_s = log[0].monotonic_s if log else 0.0
    for row in (*log.context, *log):
        timeline.add(row._replace(monotonic_s=max(start_s, row.monotonic_s)))
    return Interaction.of_sides(timeline.track("you"), timeline.track("model"), **options)


def _temporary(manifest: dict[str, Any], rows: Iterable[LogRow], played: Mapping[str, tuple[float, float]]) -> Trace:
    """Return a trace whose file goes with it."""
    folder = TemporaryDirectory(ignore_cleanup_errors=True)  # Windows keeps a file that is mapped
    path = Path(folder.name, "trace.rtnb")
    write_trace(path, manifest, rows, played)
    trace = Trace(path)
    weakref.finalize(trace, folder.cleanup)
    return trace
