"""A conversation with a realtime service: `Session`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from typing import Any, Literal, overload

from rtnb.client._link import EventStream, Link, MakeId, Route, counting_ids
from rtnb.client._queue import ResponseQueue
from rtnb.client._routes import routes
from rtnb.client._service_playback import ServicePlayback
from rtnb.client._settings import changes, session_config
from rtnb.client.log import EventLog
from rtnb.client.playback import Playback
from rtnb.client.redaction import redact_config
from rtnb.client.resources import (
    ConversationResource,
    InputAudioBufferResource,
    OutputAudioBufferResource,
    ResponseResource,
)
from rtnb.client.response import Response
from rtnb.client.speech import Sound, say
from rtnb.client.tools import SessionTools
from rtnb.errors import ConnectionClosed, LocalProtocolError, RemoteProtocolError, ServiceError
from rtnb.protocol import Connection, events
from rtnb.protocol.events import Event, UnknownEvent
from rtnb.protocol.state import State
from rtnb.protocol.values import Dialect, SessionConfig
from rtnb.transport.base import Transport

Sleep = Callable[[float], Awaitable[object]]

_NO_CONFIG = SessionConfig()


class Session:
    """An open session: speak, listen, change settings, read the log.

    Made by `rtnb.connect` (or `open_session`). Use it with ``async with``, or call `close` at the end. Everything
    happens on the event loop it was opened on. ``async for event in session`` gives every event of the service once.
    """

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        *,
        log: EventLog | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Sleep = asyncio.sleep,
        make_id: MakeId | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.log = EventLog(dialect=connection.dialect) if log is None else log
        """Every event, both ways."""
        self.playback = ServicePlayback(clock=clock) if connection.webrtc else Playback(clock=clock)
        """How much of each answer was heard."""
        self._closers: list[Callable[[], Awaitable[object]]] = []
        self.tools = SessionTools(self)
        """Python functions the model may call."""
        self.input_audio_buffer = InputAudioBufferResource(self)
        self.output_audio_buffer = OutputAudioBufferResource(self)
        self.conversation = ConversationResource(self)
        self.response = ResponseResource(self)
        self._sleep = sleep
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shown = (_NO_CONFIG, _NO_CONFIG)
        self._turns_committed = 0
        self._stopped_ms = self._committed_ms = -1  # where the last turn ended, in ms of all audio sent
        self._last_turn_s = float("-inf")
        table: dict[type[Event], Route] = {}
        self._link = Link(
            transport,
            connection,
            log=self.log,
            clock=clock,
            wall=wall,
            make_id=counting_ids() if make_id is None else make_id,
            secrets=secrets,
            routes=table,
            on_end=self._over,
        )
        self._queue = ResponseQueue(connection.state, link=self._link)
        table.update(routes(self))

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state of the protocol: items, responses, buffer."""
        return self._link.connection.state

    @property
    def config(self) -> SessionConfig:
        """The effective settings, as the service last confirmed them; keys in them (of MCP tools) are masked."""
        current = self._config
        if current is not self._shown[0]:
            self._shown = (current, redact_config(current, self._link.secrets))
        return self._shown[1]

    @property
    def _config(self) -> SessionConfig:
        return self.state.session or _NO_CONFIG

    @property
    def id(self) -> str | None:
        """The service's id of the session."""
        return self.config.id or None

    @property
    def dialect(self) -> Dialect:
        """The spelling that is spoken: ``"ga"`` or ``"preview"``."""
        return self._link.connection.dialect

    @property
    def expires_at(self) -> int | None:
        """Unix time at which the service ends the session, None where it did not say."""
        return self.config.expires_at or None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the service ends the session: below 60 it is time to open the next one."""
        return None if self.expires_at is None else self.expires_at - self._link.wall()

    @property
    def errors(self) -> list[Exception]:
        """What went wrong and could not be raised from a call: refusals without a caller, tools caught in a loop."""
        return self._link.errors

    @property
    def problems(self) -> list[RemoteProtocolError]:
        """Messages that could not be read; each is in the log as ``unreadable``, and the session goes on."""
        return self._link.problems

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self.ended is not None

    @property
    def ended(self) -> ConnectionClosed | None:
        """How the session ended (its `code` and `reason`), None while it is open."""
        return self._link.ended

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it was opened on: its calls are awaited there, whoever makes them."""
        return self._opened.get_loop()

    def __repr__(self) -> str:
        return f"<Session {self._line}, {len(self.log)} events>"

    @property
    def _line(self) -> str:
        return f"{self.id} ({self.dialect}) {f'closed ({self.ended.code})' if self.ended else 'open'}"

    def _repr_html_(self) -> str:
        facts = {
            "session": self._line,
            "model": self.config.model or "–",
            "voice": self.config.voice or "–",
            "turn detection": getattr(self.config.turn_detection, "type", None) or "none (push to talk)",
            "events": len(self.log),
        }
        rows = "".join(f"<tr><th>{key}</th><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
        return f"<table>{rows}</table>"

    # --- talking ------------------------------------------------------------------------------------------------------

    async def ask(self, text: str, *, follow_tools: bool = True, **settings: Any) -> Response:
        """Say something in writing and return the whole answer.

        Parameters
        ----------
        text : str
            What the user says.
        follow_tools : bool, default True
            Where the model calls tools, return the answer that comes after them; False returns the response that
            calls (its tools are run all the same: see `SessionTools.automatic`).
        **settings
            Of the response, as `session.response.create` takes them.

        Returns
        -------
        Response
            Done; its status can also be ``cancelled`` or ``incomplete``.

        Raises
        ------
        ServiceError
            The service refuses; `ResponseFailed` or `RateLimited` where it fails on the way.
        ConnectionClosed
            The session ended first.
        """
        item = await self.conversation.item._begin(text)
        response = await self.response.create(**settings)
        await item
        return await (self.follow(response) if follow_tools else response)

    async def follow(self, response: Response) -> Response:
        """Wait until a response is done and, where it called tools, until the one that speaks is done."""
        await response
        while response._follow_up is not None:
            following = await self._followed(response._follow_up)
            if following is None:
                break  # a call was left to you
            response = await following
        return response

    async def _followed(self, task: asyncio.Task[Response | None]) -> Response | None:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by close(), not by who waits here
                raise ConnectionClosed("the session was closed while tools ran", code=1000) from None
            raise

    @overload
    async def say(self, audio: Sound, *, respond: Literal[True] = True, **options: Any) -> Response: ...

    @overload
    async def say(self, audio: Sound, *, respond: bool, **options: Any) -> Response | None: ...

    async def say(self, audio: Sound, *, respond: bool = True, **options: Any) -> Response | None:
        """Say something aloud and return the response as it begins: see `rtnb.client.speech.say` for the options."""
        return await say(self, audio, respond=respond, **options)

    async def next_response(self) -> Response:
        """Wait for the next response the service begins by itself (turn detection); each is returned once."""
        return await self._queue.next()

    async def interrupt(self) -> dict[str, int]:
        """Stop the assistant: cancel the active response, flush what is not played, cut the items to what was heard.

        Returns
        -------
        dict
            item_id -> heard ms of every item that was cut.
        """
        webrtc = self._link.connection.webrtc
        cut = self.playback.flush(growing=tuple(self._queue.live))
        if self._queue.active is not None:
            await self.response.cancel()
        if webrtc and cut:  # the service plays, and truncates by itself
            await self.output_audio_buffer.clear()
        elif not webrtc:
            await self._truncate(cut)
        return {item_id: heard_ms for item_id, _, heard_ms in cut}

    async def _truncate(self, cut: Sequence[tuple[str, int, int]]) -> None:
        for item_id, content_index, heard_ms in cut:
            try:
                await self.conversation.item.truncate(item_id, content_index=content_index, audio_end_ms=heard_ms)
            except ServiceError as error:  # deleted meanwhile, or the service has less of it: nothing is left to cut
                if "already shorter" not in str(error) and error.code != "item_not_found":
                    self.errors.append(error)

    # --- settings -----------------------------------------------------------------------------------------------------

    async def update(self, config: SessionConfig | None = None, **settings: Any) -> SessionConfig:
        """Change settings of the session.

        Only what differs is sent; a setting that is as wanted never travels (a repeated voice can make the service
        refuse everything else).

        Parameters
        ----------
        config : SessionConfig, optional
            Settings as a value.
        **settings
            Or by name: `instructions`, `voice`, `turn_detection`, `input_format`, `output_format`, `transcription`,
            `tools`, `output_modalities` …

        Returns
        -------
        SessionConfig
            All effective settings.

        Raises
        ------
        ServiceError
            The service refuses; then nothing at all has changed.
        TypeError
            An unknown setting.
        """
        if config is not None and settings:
            raise TypeError("give a SessionConfig or settings by name, not both")
        wanted = session_config(**settings) if config is None else config
        key = ("session.updated",)
        if self._link.calls.waiting(key):  # what it will be is not known yet: only the voice is compared
            change = changes(SessionConfig.of(voice=self._config.voice, type=self._config.type), wanted)
        else:
            change = changes(self._config, wanted)
        if change is not None:
            await self._link.call(events.SessionUpdate(session=change, event_id=self._link.new_id()), key)
        return self.config

    # --- events -------------------------------------------------------------------------------------------------------

    async def send(self, event: Event) -> None:
        """Send any client event as it is; an `event_id` is added where it has none.

        Raises
        ------
        LocalProtocolError
            No client says that.
        ConnectionClosed
            The session is over.
        """
        await self._link.send(event)

    async def send_raw(self, message: dict[str, Any]) -> None:
        """Send a JSON object as it is, whatever it says; an `event_id` is added where it has none."""
        if not isinstance(message.get("type"), str):
            raise LocalProtocolError(f"an event needs a type, got {message.get('type')!r}")
        event_id = message.get("event_id") or self._link.new_id()
        payload = {**message, "event_id": event_id}
        await self._link.send(UnknownEvent(type=message["type"], event_id=event_id, payload=payload))

    def __aiter__(self) -> EventStream:
        return self._link.events()

    def _was_created(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _over(self, error: ConnectionClosed, at_s: float) -> None:
        self._queue.end(error, at_s)
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # whoever opens the session is told; nobody else waits

    async def close(self) -> None:
        """End the session and everything that belongs to it; closing twice is fine."""
        try:
            await self._link.close()
        finally:
            while self._closers:
                await self._closers.pop()()

    def on_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Have something closed together with the session, e.g. a simulator that was started for it."""
        self._closers.append(closer)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
