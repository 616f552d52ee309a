"""One session of the simulator: texts in, texts out, through the server side of a `Connection`.

No socket here: `receive` takes what the client sent, `outgoing` yields what to send, in order, with faults and delays
applied. The service room around it owns the socket.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, Dialect, ErrorDetail, Item, SessionConfig, Usage, events
from rtnb.protocol.replies import answer, committed, initial_session, updated_session
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig, TokenDetails
from rtnb.simulator.behaviour import Turn, text_of
from rtnb.simulator.brains import MakeBehaviour, Play
from rtnb.simulator.faults import Close, Fault, FaultPlan, Send
from rtnb.simulator.generation import Generation, Settings, rate_limits
from rtnb.simulator.pacing import LatencyProfile
from rtnb.simulator.recognise import KnownSpeech
from rtnb.simulator.recordings import Recordings, is_spoken
from rtnb.simulator.turn_taking import IdleTimeout, Started, Stopped, TurnTaking
from rtnb.simulator.usage import count_tokens
from rtnb.simulator.voice import Voice


@dataclass
class World:
    """What all sessions of a simulator share."""

    voice: Voice
    make_behaviour: MakeBehaviour
    latency: LatencyProfile
    known: KnownSpeech = field(default_factory=KnownSpeech)
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    vad_constants: dict[str, Any] = field(default_factory=dict)
    """Of the server VAD; hidden from clients, so that a calibration has something to find."""
    session_s: float = 3600.0
    """Longest session (documented: 60 minutes)."""


class LiveSession:
    """One client's session.

    Parameters
    ----------
    world : World
        What is shared.
    number : int
        Of the session: its seed, so that a repeated run says the same.
    dialect : {"ga", "preview"}
        What the client asked for by its URL.
    model : str
        Echoed.
    preset : SessionConfig, optional
        What an ephemeral key was made with.
    transcription : bool, default False
        A transcription-only session.
    started_at : int
        Unix seconds.
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
    ) -> None:
        self._world = world
        self._connection = Connection("server", dialect=dialect)
        self.dialect: Dialect = dialect
        self._behaviour = world.make_behaviour(number)
        self.latency = world.latency
        self.rng = random.Random(f"{world.seed} {number}")
        self._ids = itertools.count(1)
        self._plan = FaultPlan(world.faults, seed=world.seed * 1_000_003 + number)
        self._out: asyncio.Queue[tuple[float, Send | Close]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._turns = TurnTaking(**world.vad_constants)
        self._speech_item: str | None = None
        self._generations: dict[str, Generation] = {}
        self._late: set[asyncio.Task[None]] = set()
        self._recordings = Recordings(world.known)
        self._heard_ms = 0.0
        self._uncommitted_from = 0.0
        self.conversation_id = self.make_id("conv")
        session = initial_session(
            session_id=self.make_id("sess"),
            model=model,
            expires_at=started_at + int(world.session_s),
            dialect=dialect,
            transcription=transcription,
        )
        if preset is not None:
            session = _with_preset(session, preset, dialect)
        self.emit(events.SessionCreated(session=session))
        if dialect == "preview":
            conversation = {"id": self.conversation_id, "object": "realtime.conversation"}
            self.emit(events.ConversationCreated(conversation=conversation))
        self._follow_session()
        self._cap = self._loop.call_later(world.session_s, self._expire)

    # --- Host of a generation -----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The protocol state of the session."""
        return self._connection.state

    def make_id(self, prefix: str) -> str:
        """A new id: seeded, at most 32 characters."""
        return f"{prefix}_{self.rng.getrandbits(64):016x}{next(self._ids):04x}"

    def emit(self, event: events.Event) -> None:
        """Say an event: the state follows at once, the text leaves through `outgoing`."""
        event = replace(event, event_id=self.make_id("event"))
        text = self._connection.send(event)
        for action in self._plan.outgoing(event.type, text):
            self._out.put_nowait((self._loop.time(), action))

    def keep_audio(self, item_id: str, data: bytes, *, media_type: str) -> None:
        """Remember encoded audio for `conversation.item.retrieve`."""
        self._recordings.add(item_id, data, media_type=media_type)

    # --- out ----------------------------------------------------------------------------------------------------------

    async def outgoing(self) -> AsyncIterator[str | Close]:
        """What to send, in order; ends after a `Close`."""
        while True:
            queued_at, action = await self._out.get()
            if isinstance(action, Close):
                yield action
                return
            if action.delay_ms:
                await asyncio.sleep(max(0.0, queued_at + action.delay_ms / 1000 - self._loop.time()))
            yield action.text

    def _expire(self) -> None:
        minutes = round(self._world.session_s / 60)
        message = f"Your session hit the maximum duration of {minutes} minutes."
        self.emit(_error("session_expired", message))
        self._out.put_nowait((self._loop.time(), Close(1001, message)))

    async def aclose(self) -> None:
        """Drop everything; no task stays behind."""
        self._cap.cancel()
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        for generation in list(self._generations.values()):
            await generation.aclose()
        self._generations.clear()

    # --- in -----------------------------------------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> None:
        """Take one message of the client; what follows from it is emitted."""
        try:
            event = self._connection.receive(text)
        except RemoteProtocolError as refusal:
            self.emit(refusal.answer)
            return
        if isinstance(event, events.InputAudioBufferAppend):
            self._append(event)
        elif isinstance(event, events.ResponseCreate):
            self.respond(event.response or ResponseConfig())
        elif isinstance(event, events.ResponseCancel):
            self._cancel(event.response_id or self.state.active_response_id or "", "client_cancelled")
        elif isinstance(event, events.ConversationItemRetrieve):
            self.emit(
                events.ConversationItemRetrieved(
                    item=self._recordings.with_audio(self.state.entries[event.item_id].item)
                )
            )
        elif isinstance(event, events.InputAudioBufferCommit):
            self._commit_by_hand(event)
        else:
            for reply in answer(self.state, event, make_id=self.make_id, dialect=self.dialect):
                self.emit(reply)
            self._after_reply(event)

    def _after_reply(self, event: events.Event) -> None:
        if isinstance(event, events.SessionUpdate):
            self._follow_session()
        elif isinstance(event, events.InputAudioBufferClear):
            self._uncommitted_from = self._turns.heard_ms
        elif isinstance(event, events.ConversationItemCreate):
            item_id = next(iter(self.state.order[::-1]), "")
            for part in event.item.content or ():
                if part.audio:
                    self._recordings.add(
                        event.item.id or item_id, part.audio, media_type=self._session.input_format.type
                    )
        else:
            self._recordings.follow(event)

    def _follow_session(self) -> None:
        session = self._session
        self._turns.configure(session.turn_detection, session.input_format)

    @property
    def _session(self) -> SessionConfig:
        assert self.state.session is not None  # session.created is the first thing said
        return self.state.session

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _append(self, event: events.InputAudioBufferAppend) -> None:
        if len(event.audio) % self._turns.bytes_per_sample:
            self.emit(_error("invalid_value", "Invalid 'audio': half a sample is left over.", param="audio", of=event))
            return
        for heard in self._turns.append(event.audio):
            if isinstance(heard, Started):
                self._speech_started(heard)
            elif isinstance(heard, Stopped):
                self._speech_stopped(heard)
            else:
                self._idle_timeout(heard)

    def _flag(self, name: str) -> bool:
        detection = self._session.turn_detection
        return getattr(detection, name, None) is not False and self._session.type == "realtime"

    def _speech_started(self, heard: Started) -> None:
        self._speech_item = self.make_id("item")
        self.emit(events.InputAudioBufferSpeechStarted(audio_start_ms=heard.audio_start_ms, item_id=self._speech_item))
        active = self.state.active_response_id
        if active and self._flag("interrupt_response"):
            self._cancel(active, "turn_detected")
        elif self._pending and self._flag("interrupt_response"):
            for generation in self._pending:
                generation.cut("turn_detected")

    @property
    def _pending(self) -> list[Generation]:
        """Responses of the conversation that are not announced yet."""
        return [g for g in self._generations.values() if not g.outside and not g.created]

    def _speech_stopped(self, heard: Stopped) -> None:
        item_id = self._speech_item or self.make_id("item")
        self._speech_item = None
        self.emit(events.InputAudioBufferSpeechStopped(audio_end_ms=heard.audio_end_ms, item_id=item_id))
        self._commit(item_id, heard.audio_start_ms, heard.audio_end_ms)
        if self._flag("create_response"):
            self._respond_by_itself()

    def _idle_timeout(self, heard: IdleTimeout) -> None:
        item_id = self.make_id("item")
        start, end = heard.audio_start_ms, heard.audio_end_ms
        self.emit(events.InputAudioBufferTimeoutTriggered(audio_start_ms=start, audio_end_ms=end, item_id=item_id))
        self._commit(item_id, start, end)
        self._respond_by_itself()

    def _respond_by_itself(self) -> None:
        if self.state.active_response_id or self._pending:
            message = f"Conversation already has an active response in progress: {self.state.active_response_id}."
            self.emit(_error("conversation_already_has_active_response", message))
            return
        self.respond(ResponseConfig())

    def _commit_by_hand(self, event: events.InputAudioBufferCommit) -> None:
        item_id = self._speech_item or self.make_id("item")
        self._speech_item = None
        self._turns.end_turn()
        self._commit(item_id, int(self._uncommitted_from), int(self._turns.heard_ms))

    def _commit(self, item_id: str, start_ms: int, end_ms: int) -> None:
        self._uncommitted_from = end_ms
        self._heard_ms = end_ms - start_ms
        spoken = self._turns.encoded(start_ms, end_ms)
        self._recordings.add(item_id, spoken, media_type=self._session.input_format.type)
        told = self._behaviour.hear() if isinstance(self._behaviour, Play) else None
        if told is not None:
            self._recordings.tell(item_id, told)
        for event in committed(self.state, item_id, dialect=self.dialect):
            self.emit(event)
        wanted = self._session.audio and self._session.audio.input and self._session.audio.input.transcription
        if wanted:
            text = self._recordings.words(item_id)
            self._later(self.latency.transcription_ms - self.latency.answer_ms, self._transcribed(item_id, text))

    def _transcribed(self, item_id: str, text: str | None) -> events.Event:
        if text is not None:
            seconds = round(self._heard_ms / 1000, 3)
            return events.ConversationItemInputAudioTranscriptionCompleted(
                item_id=item_id, content_index=0, transcript=text, usage=Usage(type="duration", seconds=seconds)
            )
        detail = ErrorDetail(
            type="transcription_error",
            code="audio_unintelligible",
            message="The simulator writes down only speech it knows (its own voice, a scenario): nothing is invented.",
            param=None,
        )
        return events.ConversationItemInputAudioTranscriptionFailed(item_id=item_id, content_index=0, error=detail)

    def _later(self, after_ms: float, event: events.Event) -> None:
        """Say an event after a while."""

        async def say() -> None:
            await asyncio.sleep(max(0.0, after_ms) / 1000)
            self.emit(event)

        task = self._loop.create_task(say(), name="rtnb later event")
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    # --- speaking -----------------------------------------------------------------------------------------------------

    def respond(self, config: ResponseConfig) -> None:
        """Start a response."""
        session = self._session
        items = self._context(config)
        spoken = bool(items) and is_spoken(items[-1])
        turn = Turn(
            items=items,
            instructions=config.instructions if config.instructions else session.instructions or "",
            tools=config.tools if isinstance(config.tools, tuple) else session.tools or (),
            tool_choice=config.tool_choice or session.tool_choice or "auto",
            heard_ms=self._heard_ms if spoken else 0.0,
        )
        if isinstance(self._behaviour, Play):
            self._play(text_of(items[-1]) if items else None, spoken)
        settings = Settings(config, session, turn, self._input_tokens(turn))
        generation = Generation(self, settings, behaviour=self._behaviour, voice=self._world.voice)
        self._generations[generation.id] = generation
        generation.start(on_done=self._response_done)

    def _play(self, words: str | None, spoken: bool) -> None:
        """Let the scenario choose its step: timing and faults of the step hold for this response."""
        assert isinstance(self._behaviour, Play)
        step = self._behaviour.next_step(words, speech=spoken)
        self.latency = self._behaviour.timing(self._world.latency)
        self._plan.enter_step(step.faults if step else ())

    def _context(self, config: ResponseConfig) -> list[Item]:
        if not isinstance(config.input, tuple):
            return [self._recordings.understood(item) for item in self.state.conversation]
        items = []
        for item in config.input:
            known = self.state.entries.get(item.id or "")
            items.append(known.item if item.type == "item_reference" and known else item)
        return items

    def _input_tokens(self, turn: Turn) -> TokenDetails:
        audio_ms = sum(self._recordings.duration_ms(item.id or "") for item in turn.items if is_spoken(item))
        return count_tokens(turn, audio_ms=audio_ms)

    def _response_done(self, generation: Generation) -> None:
        self._generations.pop(generation.id, None)
        played_ms = (self._loop.time() - generation.first_audio_at) * 1000 if generation.first_audio_at else 0.0
        self._turns.reply_ended(playing_ms=max(0.0, generation.sent_ms - played_ms))
        usage = self.state.responses[generation.id].response.usage
        used = usage.total_tokens if usage and usage.total_tokens else 0
        self._later(self.latency.rate_limits_ms, rate_limits(used))

    def _cancel(self, response_id: str, reason: str) -> None:
        generation = self._generations.get(response_id)
        if generation is not None:
            generation.cut(reason)


def _with_preset(session: SessionConfig, preset: SessionConfig, dialect: Dialect) -> SessionConfig:
    return updated_session(session, replace(preset, type=session.type), dialect=dialect)


def _error(code: str, message: str, *, param: str | None = None, of: Any = None) -> events.Error:
    event_id = of.event_id if of is not None and of.event_id else None
    detail = ErrorDetail(type="invalid_request_error", code=code, message=message, param=param, event_id=event_id)
    return events.Error(error=detail)
