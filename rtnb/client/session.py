"""A conversation with a realtime service: `Session`."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import escape
from importlib import import_module
from typing import Any, Literal, Unpack

from rtnb._loop import on_own_loop
from rtnb.client import resources, speech
from rtnb.client.dispatcher import Dispatcher
from rtnb.client.log import EventLog
from rtnb.client.playback import Playback
from rtnb.client.response import Response
from rtnb.client.settings import ResponseSettings, UpdateSettings, wanted_settings
from rtnb.client.tools import SessionTools
from rtnb.errors import ConnectionClosed, LocalProtocolError, RemoteProtocolError, RtnbError, ServiceError
from rtnb.protocol import events
from rtnb.protocol.events import Event, UnknownEvent
from rtnb.protocol.state import State
from rtnb.protocol.values import ContentPart, Dialect, Item, ResponseConfig, SemanticVad, ServerVad, SessionConfig
from rtnb.transport.base import Transport

_log = logging.getLogger("rtnb")


class Session:
    """An open session: talk, listen, change settings, read the log.

    Made by `rtnb.connect` (or `open_session`). Use it with ``async with``, or call `close` at the end. Its calls work
    from any event loop and thread. ``async for event in session`` yields every event of the service once. Every request
    ends: with its reply, with `ServiceError`, or with `RequestTimeout` (acknowledgements after `request_timeout_s`, a
    response after `response_timeout_s` without an event of it).

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast") as session:
    ...         await session.update(instructions="Be brief.")
    ...         await session.ask("Hello!")
    ...         return session.config.instructions, len(session.log) > 10
    >>> asyncio.run(talk())
    ('Be brief.', True)
    """

    save_trace: Callable[..., Any]
    """Write what the log still holds as a trace, ``save_trace("talk.rtnb")``, and return its path; set by `connect`."""
    findings: Callable[[], Any]
    """Search the log for mistakes and surprises: see `rtnb.trace.findings`; set by `connect`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._lease = _Lease()
        dispatcher.responses.lease = weakref.ref(self._lease)
        weakref.finalize(self._lease, _abandon, dispatcher).atexit = False
        self.log: EventLog = dispatcher.log
        """Every event, both directions."""
        self.playback: Playback = dispatcher.playback
        """How much of each answer was played."""
        self.tools = SessionTools(dispatcher)
        """Python functions and MCP tools of the model."""
        self.input_audio_buffer = resources.InputAudioBufferResource(dispatcher)
        self.output_audio_buffer = resources.OutputAudioBufferResource(dispatcher)
        self.conversation = resources.ConversationResource(dispatcher)
        self.response = resources.ResponseResource(dispatcher)
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The protocol state: items, responses, buffer."""
        return self._dispatcher.connection.state

    @property
    def config(self) -> SessionConfig:
        """The settings in force, as the service last confirmed them; printing it hides keys of MCP tools."""
        return self._dispatcher.config

    @property
    def id(self) -> str | None:
        """The service's id of the session."""
        return self.config.id or None

    @property
    def dialect(self) -> Dialect:
        """The dialect on the wire: ``"ga"`` or ``"preview"``."""
        return self._dispatcher.connection.dialect

    @property
    def transport(self) -> Transport:
        """The connection below; its `facts` describe the service."""
        return self._dispatcher.transport

    @property
    def webrtc(self) -> bool:
        """True where audio goes over a WebRTC call and not through events."""
        return self._dispatcher.connection.webrtc

    @property
    def generation(self) -> int:
        """Number of the service's session: 1, and one more after each reconnect."""
        return self._dispatcher.generation

    @property
    def expires_at(self) -> int | None:
        """Unix time at which the service ends the session, None where the service states none."""
        return self.config.expires_at or None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the service ends the session. Below 60, open the next one, or use ``reconnect=True``."""
        return None if self.expires_at is None else self.expires_at - self._dispatcher.wall()

    @property
    def request_timeout_s(self) -> float:
        """Deadline of acknowledgements, in seconds; can be set."""
        return self._dispatcher.request_timeout_s

    @request_timeout_s.setter
    def request_timeout_s(self, seconds: float) -> None:
        self._dispatcher.request_timeout_s = seconds

    @property
    def response_timeout_s(self) -> float:
        """Longest time without an event of a response, in seconds; can be set."""
        return self._dispatcher.responses.timeout_s

    @response_timeout_s.setter
    def response_timeout_s(self, seconds: float) -> None:
        self._dispatcher.responses.timeout_s = seconds

    @property
    def errors(self) -> list[Exception]:
        """Errors that no call waited for, the newest 200; also logged by ``logging.getLogger("rtnb")``."""
        return list(self._dispatcher.errors)

    @property
    def problems(self) -> list[RemoteProtocolError]:
        """Messages that could not be read, the newest 200; the log has each as ``unreadable``."""
        return list(self._dispatcher.problems)

    @property
    def closed(self) -> bool:
        """True once the session is over."""
        return self.ended is not None

    @property
    def ended(self) -> ConnectionClosed | None:
        """The end of the session with its `code` and `reason`, None while it is open."""
        return self._dispatcher.ended

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the session runs on."""
        return self._loop

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

    @on_own_loop
    async def ask(
        self,
        text: str,
        *,
        stream: bool = False,
        follow_tools: bool = True,
        timeout_s: float | None = None,
        **settings: Unpack[ResponseSettings],
    ) -> Response:
        """Send a text message and return the finished answer.

        Parameters
        ----------
        text : str
            The user's message.
        stream : bool, default False
            Return the response as soon as it begins: iterate its deltas, await its end.
        follow_tools : bool, default True
            Where the model calls tools, return the answer after them; False returns the response with the calls (they
            run all the same: see `SessionTools.automatic`).
        timeout_s : float, optional
            Longest time without an event of the response; default `response_timeout_s` (60 s).
        **settings
            Settings of the response, as for `session.response.create`.

        Returns
        -------
        Response
            Done (unless `stream`); its status can also be ``cancelled`` or ``incomplete``.

        Raises
        ------
        ServiceError
            The service refuses; `ResponseFailed` or `RateLimited` where the response fails.
        RequestTimeout
            No event before the deadline.
        BudgetExceeded
            The budget is used up; nothing was sent.
        ConnectionClosed
            The session ended first.
        """
        dispatcher = self._dispatcher
        config = ResponseConfig.of(**settings) if settings else None
        if dispatcher.meter is not None:
            dispatcher.check_budget()
        item_id = dispatcher.new_id("item")
        content = (ContentPart(type="input_text", text=text),)
        item = Item(type="message", id=item_id, role="user", content=content)
        event = events.ConversationItemCreate(item=item, event_id=dispatcher.new_id("client"))
        added, response = await dispatcher.begin(event, "conversation.item.added", item_id), None
        try:
            response = await dispatcher.create_response(config, timeout_s=timeout_s)
            if added.reply.done():
                added.reply.result()  # the service answers in order: a refusal of the message is known by now
            return response if stream else await (self.follow(response) if follow_tools else response)
        except RtnbError:
            if added.reply.done() and isinstance(refusal := added.reply.exception(), ServiceError):
                if response is not None:  # an answer to nothing
                    dispatcher.spawn(dispatcher.cancel(response.id), name="rtnb-session-cancel")
                raise refusal from None
            raise
        finally:
            dispatcher.pending.discard(added)  # an acknowledgement that was lost costs nothing

    @on_own_loop
    async def follow(self, response: Response) -> Response:
        """Wait for the end of a response and, where it called tools, for the end of the answer after them."""
        await response
        while response.follow_up is not None:
            try:
                following = await asyncio.shield(response.follow_up)
            except asyncio.CancelledError:
                if response.follow_up.cancelled():  # by close(), not by the caller
                    raise ConnectionClosed("the session was closed while tools ran", code=1000) from None
                raise
            if following is None:
                break  # a call waits for your answer
            response = await following
        return response

    @on_own_loop
    async def say(
        self,
        audio: speech.Sound,
        *,
        rate_hz: int | None = None,
        paced: bool | float | None = None,
        respond: bool = True,
        trailing_silence_ms: int | None = None,
        stream: bool = False,
        follow_tools: bool = True,
        timeout_s: float | None = None,
        **settings: Unpack[ResponseSettings],
    ) -> Any:
        """Send speech and return the finished answer.

        With turn detection the audio is streamed as from a microphone, followed by the silence that ends the turn, and
        the service creates the response. Without it (push to talk) the audio is appended and committed, and a response
        is created.

        Parameters
        ----------
        audio : array_like or path
            Samples as `rtnb.audio.as_audio` takes them (int16, int32, uint8, float32, float64; mono or stereo), or the
            path of a WAV file.
        rate_hz : int, optional
            Rate of the array in Hz; required for arrays. A WAV file carries its own.
        paced : bool or float, optional
            True sends in real time, False at once, a number that many times faster than real time. None: real time
            with turn detection (which misfires on a flood of audio), at once without.
        respond : bool, default True
            False returns None as soon as everything is sent (push to talk: committed).
        trailing_silence_ms : int, optional
            Most silence that follows; it ends when the service has committed the turn. None: the hangover of turn
            detection and 300 ms; none without turn detection.
        stream, follow_tools : bool
            As for `ask`.
        timeout_s : float, optional
            Longest time from the last chunk to the begin of the answer; default `request_timeout_s` (15 s).
        **settings
            Settings of the response (`session.response.create`), where it is created here.

        Returns
        -------
        Response or None

        Raises
        ------
        AudioError
            No audio, or an array without `rate_hz`.
        ServiceError
            The service refuses, e.g. less than 100 ms (``input_audio_buffer_commit_empty``).
        RequestTimeout
            The service detected no speech, or not its end, or began no answer.
        """
        samples, rate_hz = speech.to_samples(audio, rate_hz)
        config = ResponseConfig.of(**settings) if settings else None
        dispatcher, detection, response = self._dispatcher, self.config.turn_detection, None
        speed = speech.to_speed(paced, default=1.0 if detection else 0.0)
        speech.check_speech(dispatcher, config, respond=respond)
        async with dispatcher.speaking:
            turns, start = dispatcher.turns, dispatcher.turns.count
            dispatcher.responses.claimed = deque() if detection and respond else None
            try:
                await speech.speak(dispatcher, samples, rate_hz, speed=speed, clear=not detection)
                if detection:
                    await speech.be_silent(dispatcher, trailing_silence_ms, speed=speed)
                    if respond:
                        response = await speech.answer(dispatcher, turns, start, config, timeout_s)
                else:
                    await self.input_audio_buffer.commit()
                    if respond:
                        response = await dispatcher.create_response(config, timeout_s=timeout_s)
            finally:
                dispatcher.responses.claimed = None
        if response is None or stream:
            return response
        return await (self.follow(response) if follow_tools else response)

    async def say_image(self, image: speech.Image, *, detail: Literal["auto", "low", "high"] = "auto") -> Item:
        """Add an image to the conversation and return its item; ask about it next.

        Parameters
        ----------
        image : array_like, bytes or path
            Pixels (uint8, or floats from 0 to 1; shape (height, width) or (height, width, 3 or 4)), or a PNG or JPEG
            file, as bytes or as a path.
        detail : {"auto", "low", "high"}, default "auto"
            Resolution at which the model looks at it.

        Raises
        ------
        ValueError
            Neither PNG nor JPEG, or pixels of a wrong shape.
        ServiceError
            The service refuses: the model takes no images, or it speaks the preview dialect.
        """
        return await self.conversation.item.create(speech.image_item(image, detail=detail))

    @on_own_loop
    async def next_response(self, timeout_s: float | None = None) -> Response:
        """Wait for the next response that turn detection begins.

        Each is returned once, to the consumer that waits longest; where none waits, the newest 8 are kept. The answer
        to an `ask` or a `say` is never among them. `timeout_s` raises `RequestTimeout`; None waits as long as the
        session is open.
        """
        if self.ended is not None:
            raise self.ended.again()
        return await self._dispatcher.responses.next(timeout_s)

    @on_own_loop
    async def interrupt(self) -> dict[str, int]:
        """Stop the assistant: cancel the active response, flush the playback, cut the items to what was played.

        Returns
        -------
        dict
            item_id -> played ms of every item that was cut.
        """
        dispatcher = self._dispatcher
        cut = dispatcher.playback.flush(growing=tuple(dispatcher.responses.live))
        try:
            if dispatcher.responses.active is not None:
                await dispatcher.cancel()
        finally:  # what was thrown away here is cut there, whatever became of the cancel
            if not dispatcher.connection.webrtc:
                await dispatcher.truncate(cut)
            elif cut:  # the service plays, and truncates
                await self.output_audio_buffer.clear()
        return {item_id: heard_ms for item_id, _, heard_ms in cut}

    # --- settings -----------------------------------------------------------------------------------------------------

    @on_own_loop
    async def update(
        self, config: SessionConfig | None = None, *, timeout_s: float | None = None, **settings: Unpack[UpdateSettings]
    ) -> SessionConfig:
        """Change settings of the session.

        Only settings that differ from those in force are sent: one refused field makes the service drop the whole
        update, and a repeated voice can be refused.

        Parameters
        ----------
        config : SessionConfig, optional
            Settings as a value.
        timeout_s : float, optional
            Deadline; default `request_timeout_s` (15 s).
        **settings
            Or by name: `instructions`, `voice`, `turn_detection`, `transcription`, `tools` …

        Returns
        -------
        SessionConfig
            All settings in force.

        Raises
        ------
        ServiceError
            The service refuses; then nothing has changed.
        TypeError
            An unknown setting; names the nearest one.
        """
        await self._dispatcher.update(wanted_settings(config, settings), timeout_s=timeout_s)
        return self.config

    def overlap_settings(self, *, listening: ServerVad | SemanticVad, speaking: ServerVad | SemanticVad) -> Any:
        """Use one turn detection while the assistant is silent, and another while it speaks.

        Parameters
        ----------
        listening, speaking : ServerVad or SemanticVad
            Applied at once, and at each change of state.

        Returns
        -------
        rtnb.tuning.OverlapSettings
            Sends two updates for each spoken response; its ``aclose`` ends that.
        """
        return import_module("rtnb.tuning").OverlapSettings(self, listening=listening, speaking=speaking)

    # --- events -------------------------------------------------------------------------------------------------------

    @on_own_loop
    async def send(self, event: Event) -> None:
        """Send any client event as it is; an event without `event_id` gets one.

        Raises
        ------
        LocalProtocolError
            Not a client event.
        ConnectionClosed
            The session is over.
        """
        if not event.event_id:
            event = replace(event, event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.send(event)

    async def send_raw(self, message: dict[str, Any]) -> None:
        """Send a JSON object as it is, valid or not; one without `event_id` gets one."""
        if not isinstance(message.get("type"), str):
            raise LocalProtocolError(f"an event needs a type, got {message.get('type')!r}")
        message = {**message, "event_id": message.get("event_id") or self._dispatcher.new_id("client")}
        await self.send(UnknownEvent(type=message["type"], event_id=message["event_id"], payload=message))

    def __aiter__(self) -> EventStream:
        return EventStream(self)

    # --- the end ------------------------------------------------------------------------------------------------------

    @on_own_loop
    async def close(self) -> None:
        """End the session and everything that belongs to it; closing twice is fine."""
        await self._dispatcher.close()

    def on_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Close something together with the session, e.g. a simulator that was started for it."""
        self._dispatcher.closers.append(closer)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class EventStream:
    """The events of the service from now on, each once.

    The log is the queue, so an unread stream takes no memory. Events that the log drops before they are read are
    skipped, and a warning counts them.
    """

    def __init__(self, session: Session) -> None:
        self._session = session  # keeps it open while the stream is read
        self._loop = session.loop
        self._number = session.log.next_number

    def __aiter__(self) -> EventStream:
        return self

    @on_own_loop
    async def __anext__(self) -> Event:
        log, dispatcher = self._session.log, self._session._dispatcher
        while True:
            while self._number < log.next_number:
                row = log[max(0, self._number - log.next_number + len(log))]
                if row.number > self._number:
                    _log.warning("%d events were dropped from the log before they were read", row.number - self._number)
                self._number = row.number + 1
                if row.direction == "received":
                    return row.event
            ended = dispatcher.ended
            if ended is not None and (dispatcher.closing or ended.code == 1000):
                raise StopAsyncIteration
            await dispatcher.next_event()


class _Lease:
    """Reason to keep a session open: it is closed when the last object that holds this is collected."""


def _abandon(dispatcher: Dispatcher) -> None:
    """Close what a session that was collected without `close` leaves behind."""
    if not (dispatcher.loop.is_closed() or dispatcher.closing):
        dispatcher.loop.call_soon_threadsafe(lambda: dispatcher.spawn(dispatcher.close(), name="rtnb-session-left"))
