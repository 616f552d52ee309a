"""`MessageBar`: type, send an audio file, interrupt; one status line and the latency of the last turn.

Traits (kernel to page): `status`, `is_problem`, `busy`, `can_interrupt`, `last_turn`, `figures`. On its stream, page to
kernel: ``ask`` {text}, ``sound`` {name} (`Upload` of a sound file), ``cancel``, ``interrupt``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from traitlets import Bool, Unicode

from rtnb._loop import shared_loop
from rtnb.analysis.latency import LatencyMeter, SpeechEnd, TurnLatency
from rtnb.audio import read_wav
from rtnb.client import EventLog, LogRow, Session
from rtnb.errors import RtnbError
from rtnb.widgets._base import format_error
from rtnb.widgets._session_view import SessionView
from rtnb.widgets._upload import Upload

_SENDING: Final = "Sending the audio file …"


class MessageBar(SessionView):
    """A text box, audio files, Interrupt, one status line, and the figures of the last turn.

    Parameters
    ----------
    session : Session, optional
        The session to talk to; it may live on any event loop.
    """

    status = Unicode("", help="The status line.").tag(sync=True)
    is_problem = Bool(False, help="Whether the status line tells a problem.").tag(sync=True)
    busy = Bool(False, help="Whether an audio file is being sent.").tag(sync=True)
    can_interrupt = Bool(False, help="Whether an answer is made or played.").tag(sync=True)
    last_turn = Unicode("", help="Latency of the last turn in one line.").tag(sync=True)
    figures = Unicode("", help="Each step of the last turn, one to a line.").tag(sync=True)

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self.speech_end: SpeechEnd | None = None
        """Finds the acoustic end of speech: `Microphone.speech_end`; read when a session begins."""
        self.latency = LatencyMeter()
        """The steps of every turn of this session."""
        self._lines: dict[str, tuple[str, bool]] = {}
        self._upload = Upload()
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._answering: set[str] = set()
        super().__init__(session, **traits)

    def set_status(self, source: str, text: str = "", *, is_problem: bool = False) -> None:
        """Show one source's text in the status line: the newest problem alone, or all texts; empty takes it back."""
        self._lines.pop(source, None)
        if text:
            self._lines[source] = (text, is_problem)
        problems = [line for line, bad in self._lines.values() if bad]
        self.is_problem = bool(problems)
        self.status = problems[-1] if problems else " · ".join(line for line, _ in self._lines.values())

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        if kind == "ask":
            self._start("Waiting for the answer …", lambda session: session.ask(str(header["text"])))
        elif kind == "interrupt":
            self._start("", lambda session: session.interrupt())
        elif kind == "sound" and (sound := self._upload.receive(header, buffers)) is not None:
            self._start(_SENDING, lambda session: self._say_sound(session, sound))
        elif kind == "cancel":
            for task in [task for task, words in self._tasks.items() if words == _SENDING]:
                task.cancel()
        return {}

    async def _say_sound(self, session: Session, sound: bytes) -> None:
        self.busy = True
        try:
            audio, rate_hz = await asyncio.to_thread(read_wav, sound)
            await session.say(audio, rate_hz=rate_hz)
        finally:
            self.busy = False

    def _start(self, words: str, call: Callable[[Session], Coroutine[Any, Any, Any]]) -> None:
        async def run() -> None:
            problem = ""
            self.set_status("message", words)
            try:
                if not isinstance(self.session, Session) or self.session.closed:
                    raise RtnbError("There is no open session.").with_hint("Connect first.")
                await call(self.session)
            except RtnbError as error:
                problem = format_error(error)
            finally:  # also where it was cancelled
                self.set_status("message", problem, is_problem=True)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks[task] = words
        task.add_done_callback(self._tasks.pop)

    # --- following the session ----------------------------------------------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        self.latency = LatencyMeter(self.speech_end)
        self.last_turn = self.figures = ""
        self.set_status("message")
        self._answering.clear()

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        self.latency.feed(rows)
        for row in rows:
            event: Any = row.event
            if row.type == "response.created":
                self._answering.add(event.response.id)
            elif row.type == "response.done":
                self._answering.discard(event.response.id)
                if event.response.status == "failed":
                    self.set_status("message", "The response failed; see Events.", is_problem=True)
        if self.latency.turns and (text := format_turn(self.latency.turns[-1])):  # else the turn before stays
            self.last_turn, self.figures = text, turn_figures(self.latency.turns[-1])
        self._on_played()

    def _on_played(self) -> None:
        if isinstance(self.session, Session):
            answers = bool(self._answering or self.session.playback.playing)
            self.can_interrupt = answers and not self.session.closed

    def _on_end(self) -> None:
        self._answering.clear()
        self._on_played()

    def close(self) -> None:
        """Stop its requests and leave the page; closing twice is fine."""
        if self._tasks:
            shared_loop().call_if_running(lambda: [task.cancel() for task in self._tasks])
        super().close()


def format_turn(turn: TurnLatency) -> str:
    """Return the latency of a turn in one line; empty before the answer begins."""
    point = "first audio" if turn.first_audio_s is not None else "first token"
    ms = turn.ms(point)
    return "" if ms is None else f"{turn.start} → {point} {ms:.0f} ms"


def turn_figures(turn: TurnLatency) -> str:
    """Return every step of a turn, one to a line."""
    lines = []
    if turn.acoustic_s is None and turn.kind in ("speech", "push to talk"):
        lines.append("acoustic end: n/a; the sound passed no microphone of the notebook")
    start = ": the last loud sample in the microphone" if turn.acoustic_s is not None else ""
    lines.append(f"{turn.start}: 0 ms{start}")
    lines += [f"{name}: {turn.ms(name):.0f} ms (+{ms:.0f} ms)" for name, ms in turn.steps_ms.items()]
    return "\n".join(lines)
