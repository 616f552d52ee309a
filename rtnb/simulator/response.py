"""Response of the simulator: from `response.created` to `response.done`, delta by delta, at its times."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np

from rtnb.audio import codec, resample
from rtnb.protocol import (
    PCM16,
    UNSET,
    AudioFormat,
    ContentPart,
    Dialect,
    ErrorDetail,
    Item,
    Response,
    SessionConfig,
    Usage,
    events,
)
from rtnb.protocol.state import State
from rtnb.protocol.values import Audio, AudioOutput, RateLimit, ResponseConfig, StatusDetails, TokenDetails
from rtnb.simulator import pacing
from rtnb.simulator.faults import FaultPlan, failure
from rtnb.simulator.item_audio import ItemAudio
from rtnb.simulator.mcp import McpTools, appended, ended
from rtnb.simulator.pacing import LatencyProfile, Planned
from rtnb.simulator.responder import Say
from rtnb.simulator.scenario import Call
from rtnb.simulator.speech import Speech
from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.simulator.usage import AUDIO_MS_PER_OUTPUT_TOKEN, QUOTA_TOKENS, ContextTooLongError, text_tokens
from rtnb.simulator.voice import Voice


class Host(Protocol):
    """Interface of the session that a response needs."""

    dialect: Dialect
    latency: LatencyProfile
    rng: random.Random
    conversation_id: str
    outside_slots: asyncio.Semaphore
    """Limits the responses outside the conversation that are generated at a time."""
    mcp: McpTools
    recordings: ItemAudio
    exact: ExactTranscriber
    faults: FaultPlan

    @property
    def state(self) -> State:
        """The protocol state of the session."""

    def emit(self, event: events.Event) -> None:
        """Send an event."""

    def make_id(self, prefix: str) -> str:
        """Return a new id."""


FAULT_DELTAS: Final = 3
"""Deltas before a fault cuts a response short. Chosen: enough to see a beginning."""
Plan = Callable[[], tuple[AsyncIterator[Say | Call], LatencyProfile]]
"""Chooses what a response says, once the words of the user are known."""
WORDS_S: Final = 10.0
"""Longest wait for the transcriber before a response begins without the user's words. Chosen."""


@dataclass
class Settings:
    """Settings of one response: the session's under those of its `response.create`."""

    config: ResponseConfig
    session: SessionConfig
    input_tokens: TokenDetails
    webrtc: bool = False
    """True where the audio goes over a track, whose format does not follow the session."""

    @property
    def modality(self) -> str:
        """``audio`` or ``text``."""
        chosen = self.config.output_modalities or self.session.output_modalities or ("audio",)
        return "audio" if "audio" in chosen else "text"

    @property
    def output(self) -> AudioOutput:
        """Voice, format and speed."""
        own = self.config.audio and self.config.audio.output
        base = self.session.audio and self.session.audio.output
        base = base or AudioOutput()
        if not own:
            return base
        return replace(base, format=own.format or base.format, voice=own.voice or base.voice)

    @property
    def format(self) -> AudioFormat:
        """Encoding of the audio."""
        return PCM16 if self.webrtc else self.output.format or PCM16

    @property
    def max_tokens(self) -> float:
        """The token limit, inf where there is none."""
        limit = self.config.max_output_tokens or self.session.max_output_tokens
        return limit if isinstance(limit, int) else math.inf


@dataclass
class _Part:
    """The output item that is being generated."""

    item: Item
    index: int
    text: str = ""
    spoken: list[Any] = field(default_factory=list)
    """Audio of its stretches."""
    runs: bool = False
    """Whether its MCP call is under way."""
    waits: bool = False
    """Whether its MCP call waits for approval; then its item ends later."""


class _CutShortError(Exception):
    """The token limit, or a fault on demand, ends the response here."""


class Generation:
    """Generates one response.

    Parameters
    ----------
    host : Host
        The session.
    settings : Settings
        What to generate.
    plan : callable
        Chooses what to say; called once.
    words : Future or None
        Search for the words of the newest item; None where they are known.
    voice : Voice
        How it sounds.
    refusal : Exception, optional
        Reason why the response fails at once.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        *,
        plan: Plan,
        words: asyncio.Future[Any] | None,
        voice: Voice,
        refusal: Exception | None = None,
    ) -> None:
        self._host = host
        self._settings = settings
        self._plan, self._words, self._refusal = plan, words, refusal
        self._pieces: AsyncIterator[Say | Call] | None = None
        self._voice = voice
        self._loop = asyncio.get_running_loop()
        self._latency = host.latency  # as it is now: a scenario changes the session's with every step
        self.id = host.make_id("resp")
        self.outside = settings.config.conversation == "none"
        """Whether the response stays out of the conversation."""
        self._done: list[Item] = []
        self._current: _Part | None = None
        self._tokens = {"text": 0, "audio": 0.0}
        self._n_deltas, self._most_deltas = 0, math.inf
        self.created = False
        """Whether `response.created` was sent."""
        self.finished = False
        self._first_audio_at: float | None = None
        self._sent_ms = 0.0
        self._next_ms = 0.0
        """Earliest start of the next stretch, ms after the first delta: where the last one ends, not when it was sent,
        so that the pace does not drift."""
        self._task: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self, *, on_done: Callable[[Generation], None]) -> None:
        """Begin. The cause reached the service `answer_ms` after it was sent; all times count from the sending."""
        self._on_done = on_done
        if self._words is None or self._words.done():
            self._choose()
        self._origin = self._loop.time() - self._latency.answer_ms / 1000
        after_s = (self._latency.response_created_ms - self._latency.answer_ms) / 1000
        if after_s <= 0 and self._pieces is not None:
            self._announce()
        self._task = self._loop.create_task(self._run(after_s), name="rtnb response")

    async def _run(self, after_s: float) -> None:
        try:
            if not self.created:
                await asyncio.sleep(max(0.0, after_s))
                if self._words is not None and self._words.done():
                    self._choose()
                self._announce()
            if self._refusal is not None:
                raise self._refusal
            if self._pieces is None and self._words is not None:
                await asyncio.wait({self._words}, timeout=WORDS_S)
            self._choose()
            async with self._host.outside_slots if self.outside else contextlib.nullcontext():
                await self._generate()
        except Exception as error:  # a responder or a voice of the user's: the session must outlive it
            self._finish("failed", error=_failure(error))

    def _choose(self) -> None:
        """Choose what to say, unless that was done."""
        if self._pieces is None:
            self._pieces, self._latency = self._plan()

    def cut(self, reason: str) -> None:
        """Stop now: ``turn_detected`` or ``client_cancelled``. Everything open is closed in order."""
        if self.finished:
            return
        if self._task is not None:
            self._task.cancel()
        if not self.created:
            self._announce()
        self._finish("cancelled", reason=reason)

    @property
    def playing_ms(self) -> float:
        """Time for which the audio sent so far still plays at a client that plays it at once."""
        if self._first_audio_at is None:
            return 0.0
        return max(0.0, self._sent_ms - (self._loop.time() - self._first_audio_at) * 1000)

    async def aclose(self) -> None:
        """Drop the response without an event: the connection is gone."""
        self.finished = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- the events ---------------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        self.created = True
        response = self._describe("in_progress", status_details=None, usage=None)
        self._host.emit(events.ResponseCreated(response=response))

    def _describe(self, status: str, **more: Any) -> Response:
        settings, preview = self._settings, self._host.dialect == "preview"
        output = settings.output
        limit = settings.config.max_output_tokens or settings.session.max_output_tokens
        return Response(
            id=self.id,
            object="realtime.response",
            status=status,
            output=tuple(self._done),
            metadata=settings.config.metadata or None,
            conversation_id=None if self.outside else self._host.conversation_id,
            output_modalities=(settings.modality,),
            audio=Audio(output=AudioOutput(format=settings.format, voice=output.voice)),
            max_output_tokens=limit,
            temperature=(settings.config.temperature or settings.session.temperature) if preview else UNSET,
            **more,
        )

    async def _generate(self) -> None:
        pieces, fault = self._pieces, self._host.faults.on_response()
        assert pieces is not None  # see _choose
        if fault is not None and fault.kind == "failed":
            self._finish("failed", error=failure(str(fault.value)))
            return
        self._most_deltas = FAULT_DELTAS if fault is not None else math.inf
        try:
            async for piece in pieces:
                await (self._call(piece) if isinstance(piece, Call) else self._say(piece))
            self._finish("completed")
        except _CutShortError:
            self._finish("incomplete", reason=str(fault.value) if fault is not None else "max_output_tokens")
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    @property
    def _left(self) -> float:
        """Tokens that the limit leaves; none once a fault on demand is due."""
        if self._n_deltas >= self._most_deltas:
            return 0
        return self._settings.max_tokens - self._tokens["text"] - self._tokens["audio"]

    def _now_ms(self) -> float:
        return (self._loop.time() - self._origin) * 1000

    async def _until(self, at_ms: float) -> None:
        """Wait for a time counted from `response.create`; a time in the past yields once."""
        await asyncio.sleep(max(0.0, (at_ms - self._now_ms()) / 1000))

    async def _say(self, piece: Say) -> None:
        """Say a stretch; raises _CutShortError."""
        part = self._current or self._open_message()
        if self._settings.modality == "text":
            planned = pacing.plan_text(piece.text, latency=self._latency, rng=self._host.rng)
            await self._send(part, planned, b"", 1, len(planned) * self._latency.text_token_ms)
            return
        output = self._settings.output
        voice = output.voice if isinstance(output.voice, str) else "alloy"
        speed = float(output.speed or 1.0)
        speech = await self._voice.speak(piece.text, voice=voice, speed=speed, language=piece.language)
        part.spoken.append(speech.audio)
        encoded, bytes_per_ms = encode_speech(speech, self._settings.format)
        planned = pacing.plan(speech, latency=self._latency, rng=self._host.rng)
        await self._send(part, planned, encoded, bytes_per_ms, speech.duration_ms / self._latency.audio_rate)

    async def _send(
        self, part: _Part, planned: Sequence[Planned], encoded: bytes, bytes_per_ms: int, lasts_ms: float
    ) -> None:
        shift_ms = max(self._next_ms, self._now_ms() - self._latency.first_delta_ms, 0.0)
        self._next_ms = shift_ms + lasts_ms
        for delta in planned:
            if self._left < 1:
                raise _CutShortError
            await self._until(delta.at_ms + shift_ms)
            self._n_deltas += 1
            if delta.kind == "audio":
                data = pacing.cut(encoded, delta, bytes_per_ms=bytes_per_ms)
                left_ms = min(self._left * AUDIO_MS_PER_OUTPUT_TOKEN, 1e9)
                self._audio(part, data[: int(left_ms) * bytes_per_ms], bytes_per_ms)
                if len(data) > left_ms * bytes_per_ms:
                    raise _CutShortError
            else:
                part.text += delta.text
                self._tokens["text"] += 1
                spoken = delta.kind == "transcript"
                Delta = events.ResponseOutputAudioTranscriptDelta if spoken else events.ResponseOutputTextDelta
                self._host.emit(Delta(**self._ids(part), delta=delta.text))

    def _ids(self, part: _Part) -> dict[str, Any]:
        lasts = {"function_call": {"call_id": part.item.call_id}, "mcp_call": {}}
        last = lasts.get(part.item.type, {"content_index": 0})
        return {"response_id": self.id, "item_id": part.item.id, "output_index": part.index, **last}

    def _audio(self, part: _Part, data: bytes, bytes_per_ms: int) -> None:
        if not data:
            return
        if self._first_audio_at is None:
            self._first_audio_at = self._loop.time()
        self._tokens["audio"] += len(data) / bytes_per_ms / AUDIO_MS_PER_OUTPUT_TOKEN
        self._sent_ms += len(data) / bytes_per_ms
        if not self.outside:  # an item outside the conversation cannot be retrieved
            self._host.recordings.add(str(part.item.id), data, media_type=self._settings.format.type)
        self._host.emit(events.ResponseOutputAudioDelta(**self._ids(part), delta=data))

    def _open_message(self) -> _Part:
        part = self._open_item(Item(type="message", role="assistant", content=()))
        written = self._settings.modality == "text"
        kind = ContentPart(type="text", text="") if written else ContentPart(type="audio", transcript="")
        self._host.emit(events.ResponseContentPartAdded(**self._ids(part), part=kind))
        return part

    def _open_item(self, item: Item) -> _Part:
        self._close_part("completed")
        item = replace(item, id=self._host.make_id("item"))
        if item.type != "mcp_call":  # has neither (API reference)
            item = replace(item, object="realtime.item", status="in_progress")
        part = self._current = _Part(item, len(self._done))
        self._host.emit(events.ResponseOutputItemAdded(response_id=self.id, output_index=part.index, item=item))
        if not self.outside:
            for event in appended(self._host.state, item, dialect=self._host.dialect, done=False):
                self._host.emit(event)
        return part

    async def _call(self, piece: Call) -> None:
        """Call a tool; raises _CutShortError."""
        config, session = self._settings.config, self._settings.session
        label = self._host.mcp.label_of(piece.name, config.tools or session.tools or ())
        kind: dict[str, Any] = {"type": "mcp_call", "server_label": label}
        if label is None:
            kind = {"type": "function_call", "call_id": self._host.make_id("call")}
        part = self._open_item(Item(name=piece.name, arguments="", **kind))
        Delta = events.ResponseFunctionCallArgumentsDelta if label is None else events.ResponseMcpCallArgumentsDelta
        await self._until(self._latency.first_delta_ms)
        before = self._tokens["text"]
        for start in range(0, len(piece.arguments), 12):
            delta = piece.arguments[start : start + 12]
            self._n_deltas += 1
            if (
                self._left < 1
                or text_tokens(part.text + delta) > self._settings.max_tokens - before - self._tokens["audio"]
            ):
                raise _CutShortError
            part.text += delta
            self._tokens["text"] = before + text_tokens(part.text)
            self._host.emit(Delta(**self._ids(part), delta=delta))
        if label is not None:
            await self._run_mcp(part)
        self._close_part("completed")

    async def _run_mcp(self, part: _Part) -> None:
        """Run an MCP call whose arguments are complete, or ask for approval."""
        self._host.emit(events.ResponseMcpCallArgumentsDone(**self._ids(part), arguments=part.text))
        part.item = replace(part.item, arguments=part.text)
        if self._host.mcp.needs_approval(part.item) and not self.outside:
            part.waits = True
            self._host.mcp.ask(part.item, part.index)
            return
        part.runs = True
        part.item = await self._host.mcp.run(part.item, part.index)
        part.runs = False

    def _close_part(self, status: str) -> None:
        """Send the `done` events of the open item."""
        part, self._current = self._current, None
        if part is None:
            return
        emit, ids = self._host.emit, self._ids(part)
        if part.spoken and status == "completed":
            self._host.exact.learn(part.text, np.concatenate(part.spoken))
        if part.item.type == "function_call":
            named: dict[str, Any] = {"name": part.item.name} if self._host.dialect == "ga" else {}
            emit(events.ResponseFunctionCallArgumentsDone(**ids, arguments=part.text, **named))
            item = replace(part.item, status=status, arguments=part.text)
        elif part.item.type == "mcp_call":
            item = self._ended_mcp(part, status)
        else:
            item = replace(part.item, status=status, content=(self._close_content(part, ids),))
        if not self.outside and self._host.dialect == "ga" and not part.waits:
            for event in ended(self._host.state, item):
                emit(event)
        emit(events.ResponseOutputItemDone(response_id=self.id, output_index=part.index, item=item))
        self._done.append(item)

    def _ended_mcp(self, part: _Part, status: str) -> Item:
        if status == "completed":
            return part.item
        if part.runs:
            self._host.emit(events.ResponseMcpCallFailed(item_id=str(part.item.id), output_index=part.index))
        error = {"type": "tool_execution_error", "message": "The response ended before the call."}
        return replace(part.item, arguments=part.text, output=None, error=error)

    def _close_content(self, part: _Part, ids: dict[str, Any]) -> ContentPart:
        emit = self._host.emit
        if self._settings.modality == "text":
            emit(events.ResponseOutputTextDone(**ids, text=part.text))
            emit(events.ResponseContentPartDone(**ids, part=ContentPart(type="text", text=part.text)))
            return ContentPart(type="output_text", text=part.text)
        emit(events.ResponseOutputAudioDone(**ids))
        emit(events.ResponseOutputAudioTranscriptDone(**ids, transcript=part.text))
        emit(events.ResponseContentPartDone(**ids, part=ContentPart(type="audio", transcript=part.text)))
        return ContentPart(type="output_audio", transcript=part.text)

    def _finish(self, status: str, **reason: Any) -> None:
        self._close_part("completed" if status == "completed" else "incomplete")
        self.finished = True
        details = StatusDetails(type=status, **reason) if reason else None
        response = self._describe(status, status_details=details, usage=self._usage())
        self._host.emit(events.ResponseDone(response=response))
        self._on_done(self)

    def _usage(self) -> Usage:
        given = self._settings.input_tokens
        n_in = sum((given.text_tokens or 0, given.audio_tokens or 0, given.image_tokens or 0))
        text, audio = self._tokens["text"], math.ceil(self._tokens["audio"])
        return Usage(
            total_tokens=n_in + int(text) + audio,
            input_tokens=n_in,
            output_tokens=int(text) + audio,
            input_token_details=given,
            output_token_details=TokenDetails(text_tokens=int(text), audio_tokens=audio),
        )


def encode_speech(speech: Speech, audio_format: AudioFormat) -> tuple[bytes, int]:
    """Return the speech in the wire's format, and its bytes per ms; encoded in one piece, so no border clicks."""
    wire = codec(audio_format.type)
    audio = resample(speech.audio, from_rate_hz=24_000, to_rate_hz=wire.rate_hz)
    return wire.encode(audio), wire.bytes_per_ms


def _failure(error: Exception) -> ErrorDetail:
    code = getattr(error, "code", None)
    if isinstance(error, ContextTooLongError):
        return ErrorDetail(type="invalid_request_error", code="context_length_exceeded", message=str(error))  # (u)
    return ErrorDetail(type="server_error", code=code if isinstance(code, str) else None, message=str(error))


def rate_limits(left: int, reset_s: float) -> events.RateLimitsUpdated:
    """Return what live services report: one token quota."""
    limit = RateLimit(name="tokens", limit=QUOTA_TOKENS, remaining=left, reset_seconds=round(reset_s, 3))
    return events.RateLimitsUpdated(rate_limits=(limit,))
