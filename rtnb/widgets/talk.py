"""`TalkBar`: talk without a microphone (type, or say a recording), interrupt, and see what the last turn took.

Traits (kernel to page): `status`, `problem`, `busy`. On its channel (page to kernel): ``ask`` {text}, ``sound``
{first, more, rate_hz} with a piece of 16-bit samples (or, without a rate, of a WAV file), ``interrupt``; kernel to
page: ``heard`` {items}, the last rows of `Playback.heard`. They pass by a blocked kernel.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from traitlets import List, Unicode

from rtnb._loop import shared_loop
from rtnb.analysis.cost import CostMeter
from rtnb.analysis.latency import LatencyMeter, SpeechEnd, TurnLatency
from rtnb.audio import decode_pcm16, read_wav
from rtnb.client import Response, Session
from rtnb.client.log import EventLog, LogRow
from rtnb.errors import RtnbError
from rtnb.widgets._base import bundle, format_error, styles
from rtnb.widgets._session_view import SessionView

HEARD_ITEMS = 12
"""How many items the table of what was heard shows: the last ones (chosen)."""

HEARD_S = 0.5
"""How often it may change (chosen)."""


class TalkBar(SessionView):
    """A line to type in, recordings to say, the figures of the last turn, and what was heard.

    Parameters
    ----------
    session : Session, optional
        Whom to talk to; it may live on any event loop.
    """

    _esm = bundle("talk.js")
    _css = styles("talk.css")

    status: List[list[str]] = List(help="[name, value, explanation] of each figure of the last turn.").tag(sync=True)
    problem = Unicode("", help="What went wrong last, in words.").tag(sync=True)
    busy = Unicode("", help="What is going on: asking, saying; empty where nothing is.").tag(sync=True)

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self.ear: SpeechEnd | None = None
        """Who knows the acoustic end of speech: `Microphone.speech_end`; looked at when a session begins."""
        self.latency = LatencyMeter()
        """The split of every turn of this session."""
        self.cost = CostMeter()
        """What this session cost so far, about."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sound = bytearray()
        self._heard: list[list[Any]] = []
        self._heard_s = 0.0
        super().__init__(session, **traits)

    # --- talking; from any loop ---------------------------------------------------------------------------------------

    async def ask(self, text: str) -> Response:
        """Send a text message and return the finished answer."""
        return await self._open_session().ask(text)

    async def say(self, audio: Any, **options: Any) -> Response:
        """Send speech and return the finished answer; takes what `Session.say` takes."""
        response: Response = await self._open_session().say(audio, **options)
        return response

    async def interrupt(self) -> None:
        """Stop the answer; without one nothing happens."""
        await self._open_session().interrupt()

    def _open_session(self) -> Session:
        session = self.session
        if not isinstance(session, Session) or session.closed:
            raise RtnbError("there is no open session").with_hint("Connect first.")
        return session

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
        if kind == "ask":
            self._start("asking", lambda: self.ask(str(header.get("text", ""))))
        elif kind == "interrupt":
            self._start("", self.interrupt)
        elif kind == "sound":
            if header.get("first"):
                self._sound.clear()
            self._sound += b"".join(buffers)
            if not header.get("more"):
                sound, self._sound = bytes(self._sound), bytearray()
                self._start("saying", lambda: self._say_sound(sound, header.get("rate_hz")))

    async def _say_sound(self, sound: bytes, rate_hz: int | None) -> Response:
        audio, rate = read_wav(sound) if rate_hz is None else (decode_pcm16(sound), int(rate_hz))
        return await self.say(audio, rate_hz=rate)

    def _start(self, what: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        async def run() -> None:
            self.problem, self.busy = "", what or self.busy
            try:
                await call()
            except RtnbError as error:
                self.problem = format_error(error)
            finally:
                if what:
                    self.busy = ""

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- following the session ----------------------------------------------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        self.latency, self.cost = LatencyMeter(self.ear), CostMeter()
        self.problem, self.status = "", []

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        self.latency.feed(rows)
        self.cost.feed(rows)
        self.status = self._figures()
        self._tell_heard()  # while somebody speaks there is always something new
        for row in rows:
            if row.type == "response.done" and row.event.response.status == "failed":  # type: ignore[attr-defined]
                self.problem = "The response failed: see the log."

    def _figures(self) -> list[list[str]]:
        if not self.latency.turns:
            return []
        figures = _split(self.latency.turns[-1])
        if self.cost.charges:
            last = self.cost.charges[-1]
            figures.append(["tokens", f"{last.tokens}", f"Of the last response; {self.cost.tokens} in this session"])
            usd = "no price known" if last.usd is None else f"≈ ${last.usd:.4f}"
            whole = f"About ${self.cost.usd:.4f} in this session. An estimate: the service bills on its own meters"
            figures.append(["cost", usd, whole])
        return figures

    def _on_played(self) -> None:
        self._tell_heard()

    def _tell_heard(self) -> None:
        if time.monotonic() - self._heard_s < HEARD_S or not isinstance(self.session, Session):
            return
        self._heard_s, before = time.monotonic(), self._heard
        self._heard = [_in_json(row) for row in self.session.playback.rows()[-HEARD_ITEMS:]]
        if self._heard != before:
            self._stream.publish("heard", {"items": self._heard})

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._stream.publish("heard", {"items": self._heard})

    def close(self) -> None:
        """Stop what goes on here and leave the page; closing twice is fine."""
        if self._tasks:
            shared_loop().call_soon(lambda: [task.cancel() for task in self._tasks])
        super().close()


def _split(turn: TurnLatency) -> list[list[str]]:
    """Name, value and explanation of every step of a turn."""
    figures = []
    if turn.acoustic_s is None and turn.kind in ("speech", "push to talk"):
        why = "No microphone of the notebook heard this turn (over WebRTC its sound does not pass the kernel)"
        figures.append(["acoustic end", "n/a", why])
    meaning = "What the figures count from"
    if turn.acoustic_s is not None:
        meaning += ": the last loud sample in the microphone, by its level"
    figures.append([turn.start, "0", meaning])
    figures += [
        [name, f"+{ms:.0f} ms", f"{name}, {turn.ms(name):.0f} ms after the {turn.start}"]
        for name, ms in turn.steps_ms.items()
    ]
    if (total := turn.ms("first audible") or turn.ms("first token")) is not None:
        figures.append(
            ["total", f"{total:.0f} ms", f"From the {turn.start} until there was something to hear (or read)"]
        )
    return figures


def _in_json(row: tuple[Any, ...]) -> list[Any]:
    """What is no number is null."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in row]
