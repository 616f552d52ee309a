"""Session of the simulator: texts in, texts out, through the server side of a `Connection`.

There is no socket here: `receive` takes the client's messages, one after the other, and `outgoing` holds the messages
to send. Over WebRTC the audio bypasses both: `take_audio` takes the user's, `play` gives the service's. The caller owns
the socket or the peer connection.
"""

from __future__ import annotations

import asyncio
import binascii
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from rtnb.errors import RemoteProtocolError, ServiceError
from rtnb.protocol import Dialect, SessionConfig, events
from rtnb.protocol.service.replies import answer, committed, initial_session, updated_session
from rtnb.protocol.service.schema import APPEND_LIMIT_BYTES
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig, Transcription, checked_base64
from rtnb.simulator import checks
from rtnb.simulator.checks import RefusedEventError
from rtnb.simulator.conversation import Conversation, Found
from rtnb.simulator.delivery import Listener, Outgoing
from rtnb.simulator.faults import Close, FaultPlan, LatencyProfile
from rtnb.simulator.mcp import McpTools
from rtnb.simulator.parts import World
from rtnb.simulator.response import Responses
from rtnb.simulator.transcriber import Transcript
from rtnb.simulator.turn_detection import Heard, IdleTimeout, Started, Stopped, TurnDetection

T = TypeVar("T")
_LOGPROBS: Final = "item.input_audio_transcription.logprobs"
LONG_TEXT: Final = 2**18
"""Characters of a message above which its audio is decoded in slices of this size (whole samples of base64): a slice
takes a millisecond. Chosen."""
MOST_KEPT: Final = 64 * 2**20
"""Characters of all items that a client creates in a session. Chosen: a dozen large images."""
MOST_OF: Final = {'"': 50_000, ",": 50_000, "\\": 200_000}
"""Quotes, commas and escapes of a long message: each value takes microseconds to check. Chosen; base64 has none."""
MOST_BASE64: Final = APPEND_LIMIT_BYTES * 4 // 3
"""Characters of the longest audio that is not refused."""


class ServiceSession:
    """Session of one client.

    Parameters
    ----------
    world : World
        The shared parts.
    number : int
        Number of the session: its seed, so that a repeated run sends the same.
    dialect : {"ga", "preview"}
        Dialect of the URL that the client asked for.
    model : str
        Echoed.
    preset : SessionConfig, optional
        Settings that an ephemeral key was made with.
    transcription : bool, default False
        A transcription-only session.
    started_at : int
        Unix seconds.
    watch : callable, optional
        Called with every event that is sent.
    azure : bool, default False
        Whether the client came to an address of Azure's.
    webrtc : bool, default False
        Audio goes over tracks: no audio deltas are sent, and the service plays and truncates.
    """

    def __init__(
        self,
        world: World,
        *,
        number: int,
        dialect: Dialect,
        model: str,
        preset: SessionConfig | None = None,
        transcription: bool = False,
        started_at: int,
        watch: Callable[[events.Event], None] | None = None,
        webrtc: bool = False,
        azure: bool = False,
    ) -> None:
        self._world, self._azure, self._watch = world, azure, watch
        self._loop = asyncio.get_running_loop()
        self.conversation = Conversation(dialect, seed=f"{world.seed} {number}", send=self._send, webrtc=webrtc)
        self._transcriber = world.transcriber or world.exact
        self.faults = FaultPlan(world.faults, seed=world.seed * 1_000_003 + number)
        self.outgoing = Outgoing(self.faults)
        self._kept: dict[str, int] = {}
        """Characters of each item that the client created."""
        self._kept_chars = 0
        self.n_events = 0
        """Events received and sent."""
        self._turns = TurnDetection(world.speech, world.end_of_turn, **world.vad_constants)
        self._speech_item: str | None = None
        self._late: set[asyncio.Task[Any]] = set()
        self.mcp = McpTools(self.conversation, world.open_mcp, self._start_late)
        parts: Any = {"faults": self.faults, "mcp": self.mcp, "turns": self._turns}
        self.responses = Responses(world, self.conversation, number=number, start=self._start_late, **parts)
        session = initial_session(
            session_id=self.conversation.make_id("sess"),
            model=model,
            expires_at=started_at + round(world.session_s),
            dialect=dialect,
            transcription=transcription,
        )
        if preset is not None:
            session = updated_session(session, replace(preset, type=session.type), dialect=dialect)
        self.conversation.emit(events.SessionCreated(session=session))
        if dialect == "preview":
            conversation = {"id": self.conversation.id, "object": "realtime.conversation"}
            self.conversation.emit(events.ConversationCreated(conversation=conversation))
        self._follow_session()
        self._cap = self._loop.call_later(world.session_s, self._expire)

    @property
    def state(self) -> State:
        """The protocol state of the session."""
        return self.conversation.state

    @property
    def latency(self) -> LatencyProfile:
        """Latencies as they are now."""
        return self.responses.latency

    def _send(self, event: events.Event, text: str) -> None:
        self.n_events += 1
        if self._watch is not None:
            self._watch(event)
        self.outgoing.send(event.type, text)

    # --- life ---------------------------------------------------------------------------------------------------------

    def listen(self) -> Listener:
        """Add a listener: it receives the session as it is now, then every event."""
        event_id = self.conversation.make_id("event")
        now = events.SessionCreated(session=self.conversation.session, event_id=event_id)
        return self.outgoing.listen(self.conversation.connection.send(now))

    @property
    def idle(self) -> bool:
        """True while no event can follow unless the client sends something."""
        return not self.responses.running and not self._late

    def _expire(self) -> None:
        message = f"Your session hit the maximum duration of {self._world.session_s / 60:.3g} minutes."
        self.conversation.emit(RefusedEventError("session_expired", message).event())
        self.outgoing.put(Close(1001, message))

    async def aclose(self) -> None:
        """Drop everything; no task stays behind."""
        self._cap.cancel()
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self.responses.aclose()

    def _start_late(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work, name="rtnb late event")
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self, text: str | bytes) -> None:
        """Take one message of the client, and send the events that follow from it; call it for one at a time."""
        self.n_events += 1
        event: events.Event | None = None
        try:
            text, audio = await _decode_slices(text) if len(text) > LONG_TEXT else (text, None)
            if len(text) > LONG_TEXT and isinstance(text, str):
                text = await _checked_length(text)
            event = self.conversation.connection.receive(text)
            if audio is not None:
                event = replace(cast("events.InputAudioBufferAppend", event), audio=audio)
                self.state.input_audio_buffer.bytes += len(audio) - len(_SAMPLE)
            await self._carry_out(event, n_chars=len(text))
        except RemoteProtocolError as refusal:
            self._refuse(refusal.answer, text)
        except RefusedEventError as refused:
            self.conversation.emit(refused.event(of=event))

    def _refuse(self, refusal: events.Error, text: str | bytes) -> None:
        """Send the protocol's refusal, except that a response that is not announced yet can be cancelled, too."""
        pending = self.responses.pending
        of_pending = refusal.error.code == "response_cancel_not_active" and pending
        if of_pending and not json.loads(text).get("response_id"):
            pending[0].cut("client_cancelled")
        else:
            self.conversation.emit(refusal)

    async def _carry_out(self, event: events.Event, *, n_chars: int) -> None:
        """Carry out an event of `n_chars` characters; raises RefusedEventError."""
        session, turns, responses = self.conversation.session, self._turns, self.responses
        if isinstance(event, events.InputAudioBufferAppend):
            checks.check_samples("audio", [event.audio], turns)
            for start in range(0, len(event.audio), LONG_TEXT):
                await self.take_audio(event.audio[start : start + LONG_TEXT])
        elif isinstance(event, events.ResponseCreate):
            config, pending = event.response or ResponseConfig(), next((one.id for one in responses.pending), None)
            checks.check_response(config, session, self.state, pending=pending, n_responses=len(responses.running))
            responses.respond(config)
        elif isinstance(event, events.ResponseCancel):
            if found := responses.running.get(event.response_id or self.state.active_response_id or ""):
                found.cut("client_cancelled")
        elif isinstance(event, events.ConversationItemRetrieve):
            item = self.state.entries[event.item_id].item
            self.conversation.emit(events.ConversationItemRetrieved(item=self.conversation.with_audio(item)))
        elif isinstance(event, events.ConversationItemCreate):
            checks.check_item(event.item, turns, self.mcp)
            self._create(event, n_chars)
        elif isinstance(event, events.InputAudioBufferCommit):
            checks.check_commit(turns)
            item_id = self._ended_item()
            turns.end_turn()
            self._commit(item_id, *turns.uncommitted_ms)
        elif isinstance(event, events.OutputAudioBufferClear):
            self._stop_playing(requested=True)
        else:
            if isinstance(event, events.SessionUpdate):
                checks.check_session(event.session, session, azure=self._azure)
            self._answer(event)

    def _answer(self, event: events.Event) -> None:
        """Send the events that follow by the protocol alone, and carry the event out."""
        self.conversation.emit(*self._replies(event))
        if isinstance(event, events.SessionUpdate):
            self._follow_session()
        elif isinstance(event, events.InputAudioBufferClear):
            self._turns.clear()
            self._speech_item = None
        else:
            if isinstance(event, events.ConversationItemDelete):
                self._kept_chars -= self._kept.pop(event.item_id, 0)
            self.conversation.follow(event)

    def _replies(self, event: events.Event) -> list[Any]:
        conversation = self.conversation
        return list(answer(self.state, event, make_id=conversation.make_id, dialect=conversation.dialect))

    def _create(self, event: events.ConversationItemCreate, n_chars: int) -> None:
        """Add the client's item to the conversation."""
        if self._kept_chars + n_chars > MOST_KEPT:
            message = f"The items of this session have more than {MOST_KEPT} characters."
            raise RefusedEventError("conversation_too_long", message)
        replies = self._replies(event)
        item_id = replies[0].item.id
        self._kept[item_id] = n_chars
        self._kept_chars += n_chars
        for part in event.item.content or ():
            if part.audio:
                self.conversation.add(item_id, part.audio, media_type=self.conversation.session.input_format.type)
        self.conversation.emit(*replies)
        if event.item.type == "mcp_approval_response":
            self.mcp.answer(event.item)

    def _follow_session(self) -> None:
        session = self.conversation.session
        self._turns.configure(session.turn_detection, self.conversation.input_format)
        self.mcp.follow(session.tools or ())

    @property
    def heard_ms(self) -> float:
        """Audio received so far."""
        return self._turns.heard_ms

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def take_audio(self, data: bytes) -> None:
        """Take the user's audio: appended, or over WebRTC from the track (PCM16 at 24 kHz)."""
        async for detected in self._turns.append(data):
            self._follow_speech(detected)

    def _follow_speech(self, detected: Heard) -> None:
        """Send the events of what was heard, commit a turn that ended, and answer it where the session wants that."""
        emit = self.conversation.emit
        if isinstance(detected, Started):
            self._speech_item = self.conversation.make_id("item")
            start_ms = detected.audio_start_ms
            emit(events.InputAudioBufferSpeechStarted(audio_start_ms=start_ms, item_id=self._speech_item))
            if self._flag("interrupt_response"):
                active = self.responses.active
                for generation in [active] if active else self.responses.pending:
                    generation.cut("turn_detected")
                self._stop_playing()
            return
        start_ms, end_ms = detected.audio_start_ms, detected.audio_end_ms
        item_id = self._ended_item()
        if isinstance(detected, Stopped):
            emit(events.InputAudioBufferSpeechStopped(audio_end_ms=end_ms, item_id=item_id))
        else:
            times: Any = {"audio_start_ms": start_ms, "audio_end_ms": end_ms}
            emit(events.InputAudioBufferTimeoutTriggered(item_id=item_id, **times))
        self._commit(item_id, start_ms, end_ms)
        if isinstance(detected, IdleTimeout) or self._flag("create_response"):
            self._respond_automatically()

    def _flag(self, name: str) -> bool:
        detection = self.conversation.session.turn_detection
        return getattr(detection, name, None) is not False and self.conversation.session.type == "realtime"

    def _ended_item(self) -> str:
        """Return the id of the turn that ends now."""
        item_id, self._speech_item = self._speech_item or self.conversation.make_id("item"), None
        return item_id

    def _respond_automatically(self) -> None:
        running = self.state.active_response_id or next((one.id for one in self.responses.pending), None)
        if running:
            self.conversation.emit(checks.busy(running).event())
        else:
            self.responses.respond(ResponseConfig())

    def _commit(self, item_id: str, start_ms: int, end_ms: int) -> None:
        spoken = self._turns.commit(start_ms, end_ms)
        self.conversation.add(item_id, spoken, media_type=self.conversation.input_format.type)
        self.conversation.emit(*committed(self.state, item_id, dialect=self.conversation.dialect))
        self._recognise(item_id)
        if wanted := self._transcription:
            after_ms = self.latency.transcription_ms - self.latency.answer_ms
            self._start_late(self._transcribe(item_id, wanted, max(0.0, after_ms) / 1000))

    @property
    def _transcription(self) -> Transcription | None:
        audio = self.conversation.session.audio
        return (audio and audio.input and audio.input.transcription) or None

    def _recognise(self, item_id: str) -> None:
        """Find the words of a spoken item: a response and its transcription wait for them."""
        if (known := self.responses.responder.transcript(None)) is not None:
            search: asyncio.Future[Found] = self._loop.create_future()
            search.set_result(Transcript(known))
        else:
            search = self._start_late(self._find_words(item_id))
        self.conversation.expect_words(item_id, search)

    async def _find_words(self, item_id: str) -> Found:
        audio, rate_hz = self.conversation.audio(item_id)
        language = str((self._transcription and self._transcription.language) or "")
        found: Found
        try:
            found = await self._transcriber.transcribe(audio, rate_hz=rate_hz, language=language)
        except ServiceError as failure:
            found = failure
        except Exception as failure:  # a transcriber of the user's: the session must outlive it
            found = ServiceError(str(failure), type="server_error", code="transcriber_failed")
        words = self.responses.responder.transcript(found.text if isinstance(found, Transcript) else None)
        return Transcript(words) if words is not None else found

    async def _transcribe(self, item_id: str, wanted: Transcription, after_s: float) -> None:
        """Send the transcription events of an item, once its words are known and the service's delay is over."""
        due = self._loop.time() + after_s
        if search := self.conversation.search(item_id):
            await asyncio.wait({search})
        await asyncio.sleep(max(0.0, due - self._loop.time()))
        logprobs = _LOGPROBS in (self.conversation.session.include or ())
        model = str(wanted.model or "")
        self.conversation.emit(*self.conversation.transcription_events(item_id, model=model, logprobs=logprobs))

    # --- playing over WebRTC ------------------------------------------------------------------------------------------

    def play(self, n_bytes: int) -> bytes:
        """Return the next audio to play over WebRTC, PCM16 at 24 kHz; silence where none waits."""
        assert self.conversation.playout is not None
        sound, emitted = self.conversation.playout.pull(n_bytes)
        self.conversation.emit(*emitted)
        return sound

    def _stop_playing(self, *, requested: bool = False) -> None:
        """Stop the play-out over WebRTC, and truncate every item to what was played (`requested`: by the client)."""
        playout = self.conversation.playout
        if playout is None:
            return
        responses, items = playout.clear()
        if requested and not responses:
            responses = [playout.last_response_id]
        for response_id in responses:
            self.conversation.emit(events.OutputAudioBufferCleared(response_id=response_id))
        for item_id, played_ms in items.items():
            if item_id in self.state.order:  # not a response's outside the conversation
                self._answer(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=played_ms))


async def _decode_slices(text: str | bytes) -> tuple[str | bytes, bytes | None]:
    """Decode the audio of a long append slice by slice, so that other sessions go on meanwhile.

    Returns
    -------
    text : str or bytes
        The message; where its audio was decoded, with a sample in its place: ``{"type":"…","audio":"AAA="}``.
    audio : bytes or None
        None where it is no such append, or its audio is refused: the protocol's checks then answer the text.
    """
    start = text.find('"audio":', 0, 1000) if isinstance(text, str) else -1
    if start < 0 or not isinstance(text, str):
        return text, None
    start = text.find('"', start + 8) + 1
    stop = text.find('"', start)
    head, tail = text[:start], text[stop:]
    if '"input_audio_buffer.append"' not in head + tail[:1000] or len(tail) > 1000 or stop - start > MOST_BASE64:
        return text, None
    audio = bytearray()
    for at in range(start, stop, LONG_TEXT):
        piece = text[at : min(at + LONG_TEXT, stop)]
        try:
            audio += binascii.a2b_base64(checked_base64(piece))
        except ValueError:  # also escapes, which only the JSON decoder reads
            return (text if "\\" in piece else f"{head}{piece}{tail}"), None
        if len(audio) % 3 and at + LONG_TEXT < stop:  # padding inside
            return text, None
        await asyncio.sleep(0)
    return f"{head}AAA={tail}", bytes(audio)


async def _checked_length(text: str) -> str:
    """Count the signs of a long message slice by slice; raises RefusedEventError where there are too many."""
    if text.lstrip(" \t\r\n")[:1] != "{":
        return text[:1000]  # no object: its beginning gets the same refusal
    counts = dict.fromkeys(MOST_OF, 0)
    for at in range(0, len(text), LONG_TEXT):
        for sign, most in MOST_OF.items():
            counts[sign] += text.count(sign, at, at + LONG_TEXT)
            if counts[sign] > most:
                message = f"Invalid event: it has more than {most} times the character {sign}. "
                raise RefusedEventError("invalid_value", f"{message}Send it in several smaller events.")
        await asyncio.sleep(0)
    return text


_SAMPLE: Final = bytes(2)  # AAA=
