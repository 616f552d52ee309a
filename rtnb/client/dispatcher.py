"""Core of a session: `Dispatcher` sends events, reads events, and gives each to whom it belongs.

One reader task takes each message from the transport. The protocol decodes it and updates the state, the log records it
and pushes it to its subscribers, and the method ``on_<event>`` handles it, if there is one. `Session` and its resources
are thin on top of this. The dispatcher holds no reference to its `Session`: a session that was dropped without `close`
can be collected.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from rtnb.analysis.cost import Budget, BudgetMeter
from rtnb.audio import Audio
from rtnb.client.log import EventLog
from rtnb.client.pending import PendingRequests, Request, fail, service_error
from rtnb.client.playback import Playback, ServicePlayback
from rtnb.client.reconnect import DELAYS_S, FATAL_CODES, restorable
from rtnb.client.response import TAG, Response
from rtnb.client.responses import Create, Responses, bound
from rtnb.errors import ConnectionClosed, RemoteProtocolError, RequestTimeout, ResponseFailed, RtnbError, ServiceError
from rtnb.protocol import Connection, events
from rtnb.protocol.events import SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.state import State
from rtnb.protocol.values import UNSET, ResponseConfig, SessionConfig
from rtnb.protocol.values import Response as ResponseValue
from rtnb.transport.base import Transport

BUSY: Final = "conversation_already_has_active_response"
NOT_ACTIVE: Final = "response_cancel_not_active"

MAX_BUSY: Final = 8
"""Times a `response.create` is sent again because turn detection began a response first (chosen)."""
KEPT_ERRORS: Final = 200
"""Errors and unreadable messages that a session keeps (chosen)."""
CLOSE_TIMEOUT_S: Final = 10.0
"""Deadline of the transport's closing handshake; a WebSocket takes 5 s at most (chosen)."""
METADATA_PAIRS: Final = 16
"""Most pairs of `metadata` (the service's limit)."""
UNREADABLE_CHARACTERS: Final = 2_000
"""Characters of an unreadable message that the log keeps (chosen)."""

_log = logging.getLogger("rtnb")


@dataclass(slots=True)
class Turns:
    """Turns of the user that the service committed."""

    count: int = 0
    stopped_ms: int = -1
    """Where the last turn ended, in ms of all audio sent; -1 before the first."""
    committed_ms: int = -1
    """The same, once it was committed."""
    committed_s: float = float("-inf")
    """When the last turn was committed, in monotonic seconds."""


def count_ids() -> Callable[[str], str]:
    """Return a maker of ids that count: ``client_1``, ``item_client_2`` …; equal sessions make equal ids."""
    numbers = count(1)
    return lambda prefix: f"client_{next(numbers)}" if prefix == "client" else f"{prefix}_client_{next(numbers)}"


def creates_response(detection: Any) -> bool:
    """Return whether turn detection creates the response to a turn."""
    return bool(detection) and getattr(detection, "create_response", UNSET) in (UNSET, True)


class Dispatcher:
    """Transport, protocol, log and pending requests of one session, on one event loop."""

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        *,
        log: EventLog,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        make_id: Callable[[str], str] | None = None,
        request_timeout_s: float = 15.0,
        response_timeout_s: float = 60.0,
    ) -> None:
        self.transport = transport
        self.connection = connection
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.clock, self.wall, self.sleep = clock, wall, sleep
        self.new_id = count_ids() if make_id is None else make_id
        self.request_timeout_s = request_timeout_s
        self.playback = ServicePlayback(clock=clock) if connection.webrtc else Playback(clock=clock)
        self.pending = PendingRequests()
        self.responses = Responses(self.pending, clock=clock, timeout_s=response_timeout_s, cancel=self._give_up)
        self.errors: deque[Exception] = deque(maxlen=KEPT_ERRORS)
        self.problems: deque[RemoteProtocolError] = deque(maxlen=KEPT_ERRORS)
        self.turns = Turns()
        self.speaking = asyncio.Lock()
        """Held by a `say`: two recordings at once would mix in the service's buffer."""
        self.speak: Callable[[Audio, int], Awaitable[None]] | None = getattr(transport, "speak", None)
        """WebRTC: plays audio on the call's track, and returns at its end."""
        self.after_response: Callable[[Response], Coroutine[Any, Any, Response | None] | None] = lambda response: None
        """Set by the tools of the session: what to run after a response with function calls."""
        self.generation = 1
        self.ended: ConnectionClosed | None = None
        self.closing: asyncio.Task[None] | None = None
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self.closers: list[Callable[[], Awaitable[object]]] = []
        self.meter: BudgetMeter | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.reopen: Callable[[], Awaitable[Transport]] | None = None
        """Opens a new transport after the connection ended; None ends the session then."""
        self._attempt = 0
        self._unrestored: State | None = None
        self._connected = asyncio.Event()
        self._connected.set()
        self._turn = asyncio.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reader = self.loop.create_task(self._read(), name="rtnb-session-reader")

    @property
    def config(self) -> SessionConfig:
        """The settings in force, as the service last confirmed them."""
        return self.connection.state.session or SessionConfig()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, event: Event, *, timeout_s: float | None = None, restoring: bool = False) -> None:
        """Send an event and log it. A cancelled caller does not stop an event that was handed to the transport."""
        if self.ended is not None:
            raise self.ended.again()
        limit_s = self.request_timeout_s if timeout_s is None else timeout_s
        await self._reconnected(event.type, limit_s, restoring=restoring)
        try:
            async with asyncio.timeout(limit_s):
                text = self.connection.send(event)  # nothing waits between this and the transport: the order is kept
                self.log.record("sent", event, monotonic_s=self.clock(), wall_time=self.wall(), text=text)
                task = self.loop.create_task(self.transport.send(text))  # cancelled half-way, it would tear a message
                self._tasks.add(task)
                task.add_done_callback(self._sent)
                await asyncio.shield(task)
        except TimeoutError:
            raise RequestTimeout(event.type, awaited="free space in the send buffer", timeout_s=limit_s) from None

    async def _reconnected(self, request: str, limit_s: float, *, restoring: bool = False) -> None:
        """Wait for the end of a reconnect. A request is entered after that: it belongs to one connection only."""
        if restoring or self._connected.is_set():
            return
        try:
            async with asyncio.timeout(limit_s):
                await self._connected.wait()
        except TimeoutError:
            raise RequestTimeout(request, awaited="a new connection", timeout_s=limit_s) from None
        if self.ended is not None:
            raise self.ended.again()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: a closed connection is reported by the reader

    async def begin(
        self,
        event: Event,
        awaits: str,
        item_id: str = "",
        *,
        timeout_s: float | None = None,
        fits: Callable[[Any], bool] | None = None,
        restoring: bool = False,
    ) -> Request:
        """Send a request; `PendingRequests.wait` returns its reply."""
        limit_s = self.request_timeout_s if timeout_s is None else timeout_s
        reply = self.loop.create_future()
        request = Request(event.type, str(event.event_id), awaits, item_id, limit_s, reply, fits)
        await self._reconnected(event.type, limit_s, restoring=restoring)
        self.pending.table[request.event_id] = request
        try:
            await self.send(event, timeout_s=timeout_s, restoring=restoring)
        except asyncio.CancelledError:
            self.pending.abandon(request)  # the service may still get it
            raise
        except Exception:
            self.pending.discard(request)
            raise
        return request

    async def request(self, event: Event, awaits: str, item_id: str = "", **options: Any) -> Any:
        """Send a request and return its reply."""
        return await self.pending.wait(await self.begin(event, awaits, item_id, **options))

    async def update(self, wanted: SessionConfig, *, timeout_s: float | None = None, restoring: bool = False) -> None:
        """Send the settings that differ from those in force, if any, and wait until the service confirms them."""
        current = self.config
        if self.pending.waiting("session.updated"):  # their values are not known yet: only the voice is compared
            current = SessionConfig.of(voice=current.voice, type=current.type)
        change = current.changes_to(wanted)
        if change is None:
            return
        await self.request(
            events.SessionUpdate(session=change, event_id=self.new_id("client")),
            "session.updated",
            timeout_s=timeout_s,
            fits=lambda reply: reply.session.changes_to(change) is None,
            restoring=restoring,
        )

    # --- responses ----------------------------------------------------------------------------------------------------

    async def create_response(
        self, config: ResponseConfig | None = None, *, timeout_s: float | None = None
    ) -> Response:
        """Request a response and return it once the service begins it; waits for an active one first."""
        if self.meter is not None:
            self.check_budget()
        if config is not None and config.conversation == "none":
            return await self._create(config, False, timeout_s)
        async with self._turn:
            for attempt in range(1, MAX_BUSY + 1):
                while self.responses.active is not None:
                    await self.responses.active.wait_done()
                try:
                    return await self._create(config, True, timeout_s)
                except ServiceError as error:
                    if error.code != BUSY or not self.responses.live or attempt == MAX_BUSY:
                        raise
            raise AssertionError  # the loop returns or raises

    async def _create(self, config: ResponseConfig | None, in_conversation: bool, timeout_s: float | None) -> Response:
        event_id = self.new_id("client")
        limit_s = self.responses.timeout_s if timeout_s is None else timeout_s
        await self._reconnected("response.create", limit_s)
        creates = self.responses.creates
        create = creates[event_id] = Create(config, in_conversation, self.clock(), limit_s)
        bound(creates)
        metadata = (config.metadata if config else None) or {}
        if len(metadata) < METADATA_PAIRS:  # the service echoes it: no other way tells whose response it is
            config = replace(config or ResponseConfig(), metadata={**metadata, TAG: event_id})
        event = events.ResponseCreate(event_id=event_id, response=config or UNSET)
        try:
            request = await self.begin(event, "response.created", timeout_s=limit_s)
            response: Response = await self.pending.wait(request)
        except RequestTimeout:
            create.expired = True
            raise
        except ServiceError:
            creates.pop(event_id, None)
            raise
        return response

    async def cancel(self, response_id: str | None = None, *, timeout_s: float | None = None) -> Response | None:
        """Cancel a response, by default the active one; returns it, or None where it had ended."""
        running = self.responses.live.get(response_id) if response_id else self.responses.active
        named = response_id or (running.id if running else "")
        event = events.ResponseCancel(response_id=named or UNSET, event_id=self.new_id("client"))
        try:
            response: Response = await self.request(event, "response.done", named, timeout_s=timeout_s)
        except ServiceError as error:
            if error.code != NOT_ACTIVE:
                raise
            if running is not None and not running.done:  # the service has ended it: its response.done was lost
                failure = ResponseFailed(f"response {running.id} ended, but its response.done did not arrive")
                self.responses.settle(running, running.value, failure)
            return None
        return response if response.status == "cancelled" else None

    def _give_up(self, response_id: str) -> None:
        event = events.ResponseCancel(response_id=response_id, event_id=self.new_id("client"))
        self.spawn(self.send(event), name="rtnb-session-cancel")

    # --- budget -------------------------------------------------------------------------------------------------------

    def set_budget(self, budget: Budget, model: str | None) -> None:
        """Watch a budget from now on."""
        self.meter = BudgetMeter(budget, model=model, clock=self.clock)
        if (left_s := self.meter.seconds_left) is not None:
            self._timers = [self.loop.call_later(share * left_s, self._keep_budget) for share in (0.8, 1.0)]

    def check_budget(self) -> None:
        """Raise `BudgetExceeded` where the budget is used up."""
        if self.meter is not None and (error := self.meter.exceeded()) is not None:
            raise error

    def _keep_budget(self) -> None:
        """Cancel the running responses where the budget is used up."""
        if self.meter is not None and self.ended is None and self.meter.exceeded() is not None:
            for response in tuple(self.responses.live.values()):
                if not response.over_budget:
                    response.over_budget = True
                    self.spawn(self.cancel(response.id), name="rtnb-session-budget")

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read until the session is over, across reconnects."""
        while True:
            closed = await self._read_until_closed()
            if self.reopen is None or self.closing or closed.code in FATAL_CODES:
                self.end(closed)
                return
            self._connected.clear()
            self.turns = Turns()
            self._fail_all(closed)
            before = self._unrestored = self._unrestored or self.connection.state  # what no session has got again yet
            transport = await self._reopened(closed)
            if transport is None:
                return
            self.transport = transport
            self.connection = Connection("client", dialect=self.connection.dialect)
            self.opened = self.loop.create_future()
            self.spawn(self._restore(before, closed), name="rtnb-session-restore")

    async def _read_until_closed(self) -> ConnectionClosed:
        receive, connection, record = self.transport.receive, self.connection, self.log.record
        text = ""
        while True:
            try:
                text = await receive()
                if "\\" in text:  # rare in JSON; a search for "\\u" is slow in base64
                    text = _SURROGATES.sub(_printable, text)
                at_s = self.clock()
                event = connection.receive(text)
                record("received", event, monotonic_s=at_s, wall_time=self.wall(), text=text)
                handler = _HANDLERS.get(type(event))
                if handler is not None:
                    handler(self, event, at_s)
                if self._waiters:
                    self._wake()
            except RemoteProtocolError as error:  # binary or no JSON: the connection goes on
                self.problems.append(error)
                kept = text[:UNREADABLE_CHARACTERS]
                payload = {"type": "unreadable", "problem": str(error), "text_as_received": kept}
                record("received", UnknownEvent(type="unreadable", payload=payload), text=text)
            except ConnectionClosed as error:
                return error
            except Exception as error:  # a mistake of ours must not leave callers waiting
                await self.transport.close(code=1011)
                broken = ConnectionClosed(f"the session failed: {type(error).__name__} in its reader", code=1011)
                broken.__cause__ = error
                return broken

    async def next_event(self) -> None:
        """Wait for the next event of the service; raises where the session is over."""
        if self.ended is not None:
            raise self.ended.again()
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _begin(self, value: ResponseValue) -> Response | None:
        output = value.audio and value.audio.output
        form = (output and output.format) or self.config.output_format
        response = self.responses.begin(value, self.clock(), form, self.connection.dialect)
        if self.meter is not None:
            self._keep_budget()
        return response

    def _response_of(self, event: Any) -> Response | None:
        """Return the response that an event belongs to; None for one that has ended."""
        response = self.responses.live.get(event.response_id)
        if response is None:  # its response.created was lost, or the event is late
            response = self._begin(ResponseValue(id=event.response_id, status="in_progress"))
        if response is not None:
            response.last_event_s = self.loop.time()
        return response

    def on_session_created(self, event: events.SessionCreated, at_s: float) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def on_session_updated(self, event: Any, at_s: float) -> None:
        """Give an acknowledgement to its request; by the item's id where it names one."""
        self.pending.answer(event.type, getattr(event, "item_id", ""), event)

    on_input_audio_buffer_cleared = on_conversation_item_deleted = on_session_updated

    def on_error(self, event: events.Error, at_s: float) -> None:
        """Raise the error in the call that caused it; log it where there is none."""
        detail = event.error
        error = service_error(detail, dialect=self.connection.dialect)
        if self.pending.refused(detail, error) is not None:
            return
        if detail.code == NOT_ACTIVE:
            return  # a cancel that came just after the end of its response
        self.report(error)
        fail(self.opened, error)

    def on_output_audio_buffer_cleared(self, event: Any, at_s: float) -> None:
        self.playback.observe(event, at_s)
        self.on_session_updated(event, at_s)

    on_output_audio_buffer_started = on_output_audio_buffer_stopped = on_output_audio_buffer_cleared
    on_conversation_item_truncated = on_output_audio_buffer_cleared

    def on_conversation_item_added(self, event: events.ConversationItemAdded, at_s: float) -> None:
        self.pending.answer("conversation.item.added", event.item.id or "", event)

    on_conversation_item_created = on_conversation_item_added
    on_conversation_item_done = on_conversation_item_added  # where the first acknowledgement was lost

    def on_conversation_item_retrieved(self, event: events.ConversationItemRetrieved, at_s: float) -> None:
        self.pending.answer(event.type, event.item.id or "", event)

    def on_input_audio_buffer_speech_started(self, event: events.InputAudioBufferSpeechStarted, at_s: float) -> None:
        """Barge-in: flush the playback and cut its items. Over WebRTC the service does both."""
        detection = self.config.turn_detection
        if self.connection.webrtc or getattr(detection, "interrupt_response", UNSET) not in (UNSET, True):
            return
        if cut := self.playback.flush(growing=tuple(self.responses.live)):
            self.spawn(self.truncate(cut), name="rtnb-session-truncate")

    def on_input_audio_buffer_speech_stopped(self, event: events.InputAudioBufferSpeechStopped, at_s: float) -> None:
        self.turns.stopped_ms = event.audio_end_ms

    def on_input_audio_buffer_committed(self, event: events.InputAudioBufferCommitted, at_s: float) -> None:
        turns = self.turns
        turns.count += 1
        turns.committed_ms, turns.committed_s = turns.stopped_ms, at_s
        if self.pending.answer(event.type, "", event):
            return
        if creates_response(self.config.turn_detection) and self.responses.active is None:
            self.responses.unanswered_s = at_s

    def on_response_created(self, event: events.ResponseCreated, at_s: float) -> None:
        if event.response.id not in self.responses.live:
            self._begin(event.response)

    def on_response_done(self, event: events.ResponseDone, at_s: float) -> None:
        response = self.responses.live.get(event.response.id) or self._begin(event.response)
        if response is None:
            return  # sent twice, or after its deadline: no tool runs again
        self.responses.settle(response, event.response)
        if self.meter is not None:
            self.meter.add_usage(response.usage)
            self._keep_budget()
        work = self.after_response(response)
        if work is not None:
            response.follow_up = self.spawn(work, name="rtnb-session-tools")

    def on_response_output_audio_delta(self, event: events.ResponseOutputAudioDelta, at_s: float) -> None:
        response = self.responses.live.get(event.response_id) or self._response_of(event)
        if response is not None:
            response.last_event_s = self.loop.time()
            audio_ms = event.audio_bytes / response.bytes_per_ms
            response.add(event, at_s)
            self.playback.received(event, audio_ms, at_s)
            if self.meter is not None:
                self.meter.add_audio(audio_ms)
                self._keep_budget()

    def on_response_output_audio_done(self, event: events.ResponseOutputAudioDone, at_s: float) -> None:
        self.playback.complete(event.item_id)

    def on_response_output_text_delta(self, event: Any, at_s: float) -> None:
        if (response := self._response_of(event)) is not None:
            response.add(event, at_s)

    on_response_output_audio_transcript_delta = on_response_output_text_delta
    on_response_function_call_arguments_delta = on_response_output_text_delta

    def on_response_output_text_done(self, event: Any, at_s: float) -> None:
        if (response := self._response_of(event)) is not None:
            response.replace_text(event)

    on_response_output_audio_transcript_done = on_response_output_text_done
    on_response_function_call_arguments_done = on_response_output_text_done

    def on_response_content_part_added(self, event: events.ResponseContentPartAdded, at_s: float) -> None:
        self._response_of(event)
        self.playback.observe(event, at_s)

    def on_response_output_item_added(self, event: Any, at_s: float) -> None:
        if (response := self._response_of(event)) is not None:
            response.add_item(event.item, complete=event.type.endswith("done"))

    on_response_output_item_done = on_response_output_item_added

    async def truncate(self, cut: Sequence[tuple[str, int, int]]) -> None:
        """Cut items to what was played; an item that is gone or already shorter needs no cut."""
        for item_id, content_index, heard_ms in cut:
            event = events.ConversationItemTruncate(
                item_id=item_id, content_index=content_index, audio_end_ms=heard_ms, event_id=self.new_id("client")
            )
            try:
                await self.request(event, "conversation.item.truncated", item_id)
            except ServiceError as error:
                if "already shorter" not in str(error) and error.code != "item_not_found":
                    self.report(error)

    # --- tasks and errors ---------------------------------------------------------------------------------------------

    def report(self, error: Exception) -> None:
        """Keep and log an error that no call waits for."""
        self.errors.append(error)
        _log.warning("%s: %s", type(error).__name__, error)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run work next to the reader; its error is reported, and `close` ends it."""
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RtnbError):
            if not isinstance(error, ConnectionClosed):
                self.report(error)
        elif error is not None:
            self.loop.call_exception_handler({"message": f"{task.get_name()} failed", "exception": error})

    # --- reconnecting -------------------------------------------------------------------------------------------------

    async def _reopened(self, closed: ConnectionClosed) -> Transport | None:
        """Open a new transport, with growing pauses; None ends the session."""
        while self._attempt < len(DELAYS_S):
            await self.sleep(DELAYS_S[self._attempt])
            self._attempt += 1
            try:
                return await self.reopen()  # type: ignore[misc]  # `_read` asked
            except (RtnbError, OSError, TimeoutError) as error:
                self.report(error)
        closed = closed.again()
        closed.add_note(f"Next: {len(DELAYS_S)} attempts to reconnect failed; session.errors has the reasons.")
        self.end(closed)
        return None

    async def _restore(self, before: State, closed: ConnectionClosed) -> None:
        """Give a new session the settings and the conversation of the one before; at a failure, try once more."""
        try:
            async with asyncio.timeout(self.request_timeout_s):
                await self.opened
            items, omitted = restorable(before, self.playback)
            settings = before.session or SessionConfig()
            # A service may refuse an unknown field that differs in each session: the second attempt leaves them out.
            extra = settings.extra if self._attempt == 1 else {}
            settings = replace(settings, id=UNSET, object=UNSET, model=UNSET, expires_at=UNSET, extra=extra)
            await self.update(settings, restoring=True)
            for item in items:
                event = events.ConversationItemCreate(item=item, event_id=self.new_id("client"))
                try:
                    await self.request(event, "conversation.item.added", item.id or "", restoring=True)
                except ServiceError as error:
                    omitted += 1
                    self.report(error)
        except (RtnbError, TimeoutError) as error:
            self.report(error)
            await self.transport.close(code=1011)  # the reader tries again
            return
        self.generation += 1
        self._attempt, self._unrestored = 0, None
        payload = {
            "type": "rtnb.reconnected",
            "generation": self.generation,
            "restored_items": len(items),
            "omitted_items": omitted,
            "problem": f"a new session continues the conversation after {closed}",
        }
        mark = UnknownEvent(type="rtnb.reconnected", payload=payload)
        self.log.record("received", mark, monotonic_s=self.clock(), wall_time=self.wall())
        self._connected.set()
        self._wake()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _fail_all(self, error: ConnectionClosed) -> None:
        """Fail everything that waits for this connection."""
        self.pending.end(error)
        self.responses.fail_all(error)
        fail(self.opened, error.again())
        self._wake()

    def end(self, error: ConnectionClosed) -> None:
        """End the session: every call that waits fails."""
        if self.ended is not None:
            return
        self.ended = error
        self._fail_all(error)
        self.responses.end(error)
        for timer in self._timers:
            timer.cancel()
        self._connected.set()

    async def close(self) -> None:
        """Close the connection and everything that belongs to the session; closing twice is fine.

        It is a task: a caller that is cancelled, such as a tool that ends with the session, does not stop it.
        """
        self.closing = self.closing or self.loop.create_task(self._close(), name="rtnb-session-close")
        await asyncio.shield(self.closing)

    async def _close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.transport.close()
        except TimeoutError:
            _log.warning("the transport did not close within %g s", CLOSE_TIMEOUT_S)
        finally:
            self._reader.cancel()  # where the transport does not wake it
            await asyncio.gather(self._reader, return_exceptions=True)
            self.end(ConnectionClosed("this side closed the session", code=1000))
            self.log.close()
            while self.closers:
                await self.closers.pop()()


_SURROGATES: Final = re.compile(r"\\(?:u[dD][89abAB]..(?:\\u[dD][c-fC-F]..)?|u[dD][c-fC-F]..|.)")
"""Escapes of a JSON text; the first two kinds are surrogates."""


def _printable(escape: re.Match[str]) -> str:
    """Replace a lone surrogate by U+FFFD: no terminal, page or file can take one. Pairs and other escapes stay."""
    return "\\ufffd" if len(escape[0]) == 6 and escape[0][2] in "dD" else escape[0]


_HANDLERS: Final[dict[type[Event], Callable[[Dispatcher, Any, float], None]]] = {
    cls: handler
    for name, cls in SERVER_EVENTS.items()
    if (handler := getattr(Dispatcher, "on_" + name.replace(".", "_"), None)) is not None
}
"""Event class -> the method of `Dispatcher` that handles it."""
