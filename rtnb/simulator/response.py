"""Responses of a session: from `response.created` to `response.done`, delta by delta, at their times."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np

from rtnb.audio import RATE_HZ, codec, resample
from rtnb.protocol import PCM16, UNSET, ContentPart, ErrorDetail, Item, Response, SessionConfig, events
from rtnb.protocol.values import Audio, AudioOutput, ResponseConfig, StatusDetails, TokenDetails, Usage, merge
from rtnb.simulator.conversation import AUDIO_MS_PER_OUTPUT_TOKEN, ContextTooLongError, Conversation, token_usage
from rtnb.simulator.faults import FaultPlan, failure
from rtnb.simulator.mcp import McpTools
from rtnb.simulator.parts import World
from rtnb.simulator.responder import Say, ScenarioResponder, Turn, is_spoken, text_of
from rtnb.simulator.scenario import Call
from rtnb.simulator.speech import Planned, cut, plan, plan_text, tokens
from rtnb.simulator.turn_detection import TurnDetection

FAULT_DELTAS: Final = 3
"""Deltas before a fault cuts a response short. Chosen: enough to see a beginning."""
WORDS_S: Final = 10.0
"""Longest wait for the transcriber before a response begins without the user's words. Chosen."""
OUTSIDE_AT_ONCE: Final = 4
"""Responses outside the conversation that one session generates at a time; the others wait. Chosen."""


class Responses:
    """Responses of one session: those under way, and what the next one is made with.

    Parameters
    ----------
    world : World
        Parts of the simulator.
    conversation, faults, mcp, turns
        Parts of the session.
    number : int
        Number of the session.
    start : callable
        Runs a coroutine beside the session, which ends with it.
    """

    def __init__(
        self,
        world: World,
        conversation: Conversation,
        *,
        number: int,
        faults: FaultPlan,
        mcp: McpTools,
        turns: TurnDetection,
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.world, self.conversation = world, conversation
        self.faults, self.mcp, self.turns, self._start = faults, mcp, turns, start
        self.responder = ScenarioResponder(world.scenario, world.make_responder(number))
        self.latency = world.latency
        """As it is now: a scenario changes it with every step."""
        self.outside_slots = asyncio.Semaphore(OUTSIDE_AT_ONCE)
        self.running: dict[str, Generation] = {}

    @property
    def pending(self) -> list[Generation]:
        """Responses of the conversation that are not announced yet."""
        return [one for one in self.running.values() if not one.outside and not one.created]

    @property
    def active(self) -> Generation | None:
        """The response of the conversation that is announced and not done."""
        return self.running.get(self.conversation.state.active_response_id or "")

    def respond(self, config: ResponseConfig) -> None:
        """Start a response."""
        generation = Generation(self, config)
        self.running[generation.id] = generation
        if not generation.outside:
            self.turns.reply_started()
        generation.start()

    def done(self, generation: Generation) -> None:
        """Follow the end of a response."""
        self.running.pop(generation.id, None)
        if self.conversation.playout is not None:
            self.conversation.playout.end(generation.id)
        if not generation.outside:
            self.turns.reply_ended(playing_ms=generation.playing_ms)
        usage = self.conversation.state.responses[generation.id].response.usage
        now_s = asyncio.get_running_loop().time()
        left = self.world.quota.use((usage and usage.total_tokens) or 0, now_s=now_s)
        self._start(self._send_late(events.RateLimitsUpdated(rate_limits=(left,))))

    async def _send_late(self, limits: events.RateLimitsUpdated) -> None:
        await asyncio.sleep(self.latency.rate_limits_ms / 1000)
        self.conversation.emit(limits)

    async def aclose(self) -> None:
        """Drop all responses."""
        for generation in list(self.running.values()):
            await generation.aclose()
        self.running.clear()


def effective(session: SessionConfig, config: ResponseConfig) -> SessionConfig:
    """Return the settings of one response: the session's under those of its `response.create`."""
    shared = {field.name for field in fields(SessionConfig)} & {field.name for field in fields(config)}
    own = SessionConfig(**{name: getattr(config, name) for name in shared - {"extra"}})
    merged: SessionConfig = merge(session, own)
    return merged


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
    responses : Responses
        Of the session.
    config : ResponseConfig
        As in `response.create`.
    """

    def __init__(self, responses: Responses, config: ResponseConfig) -> None:
        self._all, self.config = responses, config
        self.conversation, self.mcp, self.latency = responses.conversation, responses.mcp, responses.latency
        self._loop = asyncio.get_running_loop()
        self.settings = effective(self.conversation.session, config)
        self.mcp.follow(self.settings.tools or ())
        self.id = self.conversation.make_id("resp")
        self.outside = config.conversation == "none"
        """Whether the response stays out of the conversation."""
        self._refusal: Exception | None = None
        """Reason why the response fails at once."""
        tools = self.settings.tools
        fixed = (self.settings.instructions or "") + (json.dumps(list(tools)) if tools else "")
        try:
            reading = self.conversation.reading(config.input, fixed, truncation=self.settings.truncation)
        except ContextTooLongError as error:
            self._refusal, reading = error, self.conversation.reading((), fixed)
        self._context, self._input_tokens = reading
        self._words = self.conversation.search(self._context[-1]) if self._context else None
        """Search for the words of the newest item; None where they are known."""
        self._modality = "audio" if "audio" in (self.settings.output_modalities or ("audio",)) else "text"
        self._output = (self.settings.audio and self.settings.audio.output) or AudioOutput()
        # Over WebRTC the audio goes over a track, whose format does not follow the session.
        self._format = PCM16 if self.conversation.playout is not None else self._output.format or PCM16
        limit = self.settings.max_output_tokens
        self._max_tokens = limit if isinstance(limit, int) else math.inf
        self.created = self.finished = False
        """Whether `response.created` and `response.done` were sent."""
        self._pieces: AsyncIterator[Say | Call] | None = None
        self._current: _Part | None = None
        self._done: list[Item] = []
        self._n_deltas, self._most_deltas = 0, math.inf
        self._text_tokens, self._audio_tokens = 0, 0.0
        self._first_audio_at: float | None = None
        self._sent_ms = self._next_ms = 0.0
        """Audio sent, and the earliest start of the next stretch, ms after the first delta: where the last one ends,
        not when it was sent, so that the pace does not drift."""
        self._task: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. The cause reached the service `answer_ms` after it was sent; all times count from the sending."""
        if self._words is None or self._words.done():
            self._choose()
        self._origin = self._loop.time() - self.latency.answer_ms / 1000
        after_s = (self.latency.response_created_ms - self.latency.answer_ms) / 1000
        if after_s <= 0 and self._pieces is not None:
            self._announce()
        self._task = self._loop.create_task(self._run(after_s), name="rtnb response")

    async def _run(self, after_s: float) -> None:
        try:
            if not self.created:
                await asyncio.sleep(max(0.0, after_s))
                self._announce()
            if self._refusal is not None:
                raise self._refusal
            if self._words is not None:
                await asyncio.wait({self._words}, timeout=WORDS_S)
            async with self._all.outside_slots if self.outside else contextlib.nullcontext():
                await self._generate(self._choose())
        except Exception as error:  # a responder or a voice of the user's: the session must outlive it
            self._finish("failed", error=_failure(error))

    def _choose(self) -> AsyncIterator[Say | Call]:
        """Choose what to say, once the words of the newest item are known, unless that was done."""
        if self._pieces is None:
            responder, latency = self._all.responder, self._all.world.latency
            last = next(self.conversation.read(self._context[-1:]), None)
            spoken = last is not None and is_spoken(last)
            turn = Turn(
                items=functools.partial(self.conversation.read, self._context),
                last=last,
                instructions=self.settings.instructions or "",
                tools=self.mcp.offered(self.settings.tools or ()),
                tool_choice=self.settings.tool_choice or "auto",
                heard_ms=self.conversation.duration_ms(str(last.id)) if last is not None and spoken else 0.0,
            )
            if self.outside:
                self._pieces, self.latency = responder.respond(turn), latency
            else:
                step = responder.next_step(text_of(last), speech=spoken)
                self.latency = self._all.latency = responder.timing(step, latency)
                self._all.faults.enter_step(step.faults)
                self._pieces = responder.play(step, turn)
        return self._pieces

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
        self.conversation.emit(events.ResponseCreated(response=response))

    def _describe(self, status: str, **more: Any) -> Response:
        return Response(
            id=self.id,
            object="realtime.response",
            status=status,
            output=tuple(self._done),
            metadata=self.config.metadata or None,
            conversation_id=None if self.outside else self.conversation.id,
            output_modalities=(self._modality,),
            audio=Audio(output=AudioOutput(format=self._format, voice=self._output.voice)),
            max_output_tokens=self.settings.max_output_tokens,
            temperature=self.settings.temperature if self.conversation.dialect == "preview" else UNSET,
            **more,
        )

    async def _generate(self, pieces: AsyncIterator[Say | Call]) -> None:
        fault = self._all.faults.on_response()
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
        return self._max_tokens - self._text_tokens - self._audio_tokens

    def _now_ms(self) -> float:
        return (self._loop.time() - self._origin) * 1000

    async def _until(self, at_ms: float) -> None:
        """Wait for a time counted from `response.create`; a time in the past yields once."""
        await asyncio.sleep(max(0.0, (at_ms - self._now_ms()) / 1000))

    async def _say(self, piece: Say) -> None:
        """Say a stretch; raises _CutShortError."""
        part = self._current or self._open_message()
        rng = self.conversation.rng
        if self._modality == "text":
            planned = plan_text(piece.text, latency=self.latency, rng=rng)
            await self._send(part, planned, b"", 1, len(planned) * self.latency.text_token_ms)
            return
        voice = self._output.voice if isinstance(self._output.voice, str) else "alloy"
        speed = float(self._output.speed or 1.0)
        speech = await self._all.world.voice.speak(piece.text, voice=voice, speed=speed, language=piece.language)
        part.spoken.append(speech.audio)
        wire, encoded = codec(self._format.type), speech.pcm
        if wire.rate_hz != RATE_HZ:  # encoded in one piece, so no border clicks
            encoded = wire.encode(resample(speech.audio, from_rate_hz=RATE_HZ, to_rate_hz=wire.rate_hz))
        planned = plan(speech, latency=self.latency, rng=rng)
        await self._send(part, planned, encoded, wire.bytes_per_ms, speech.duration_ms / self.latency.audio_rate)

    async def _send(
        self, part: _Part, planned: Sequence[Planned], encoded: bytes, bytes_per_ms: int, lasts_ms: float
    ) -> None:
        shift_ms = max(self._next_ms, self._now_ms() - self.latency.first_delta_ms, 0.0)
        self._next_ms = shift_ms + lasts_ms
        for delta in planned:
            if self._left < 1:
                raise _CutShortError
            await self._until(delta.at_ms + shift_ms)
            self._n_deltas += 1
            if delta.kind == "audio":
                data = cut(encoded, delta, bytes_per_ms=bytes_per_ms)
                left_ms = min(self._left * AUDIO_MS_PER_OUTPUT_TOKEN, 1e9)
                self._audio(part, data[: int(left_ms) * bytes_per_ms], bytes_per_ms)
                if len(data) > left_ms * bytes_per_ms:
                    raise _CutShortError
            else:
                part.text += delta.text
                self._text_tokens += 1
                spoken = delta.kind == "transcript"
                Delta = events.ResponseOutputAudioTranscriptDelta if spoken else events.ResponseOutputTextDelta
                self.conversation.emit(Delta(**self._ids(part), delta=delta.text))

    def _ids(self, part: _Part) -> dict[str, Any]:
        lasts = {"function_call": {"call_id": part.item.call_id}, "mcp_call": {}}
        last = lasts.get(part.item.type, {"content_index": 0})
        return {"response_id": self.id, "item_id": part.item.id, "output_index": part.index, **last}

    def _audio(self, part: _Part, data: bytes, bytes_per_ms: int) -> None:
        if not data:
            return
        if self._first_audio_at is None:
            self._first_audio_at = self._loop.time()
        self._audio_tokens += len(data) / bytes_per_ms / AUDIO_MS_PER_OUTPUT_TOKEN
        self._sent_ms += len(data) / bytes_per_ms
        if not self.outside:  # an item outside the conversation cannot be retrieved
            self.conversation.add(str(part.item.id), data, media_type=self._format.type)
        self.conversation.emit(events.ResponseOutputAudioDelta(**self._ids(part), delta=data))

    def _open_message(self) -> _Part:
        part = self._open_item(Item(type="message", role="assistant", content=()))
        self.conversation.emit(events.ResponseContentPartAdded(**self._ids(part), part=self._content("")))
        return part

    def _open_item(self, item: Item) -> _Part:
        self._close_part("completed")
        item = replace(item, id=self.conversation.make_id("item"))
        if item.type != "mcp_call":  # has neither (API reference)
            item = replace(item, object="realtime.item", status="in_progress")
        part = self._current = _Part(item, len(self._done))
        self.conversation.emit(events.ResponseOutputItemAdded(response_id=self.id, output_index=part.index, item=item))
        if not self.outside:
            self.conversation.append(item, done=False)
        return part

    async def _call(self, piece: Call) -> None:
        """Call a tool; raises _CutShortError."""
        label = self.mcp.label_of(piece.name, self.settings.tools or ())
        kind: dict[str, Any] = {"type": "mcp_call", "server_label": label}
        if label is None:
            kind = {"type": "function_call", "call_id": self.conversation.make_id("call")}
        part = self._open_item(Item(name=piece.name, arguments="", **kind))
        Delta = events.ResponseFunctionCallArgumentsDelta if label is None else events.ResponseMcpCallArgumentsDelta
        await self._until(self.latency.first_delta_ms)
        before = self._text_tokens
        for start in range(0, len(piece.arguments), 12):
            delta = piece.arguments[start : start + 12]
            self._n_deltas += 1
            n_tokens = before + len(tokens(part.text + delta))
            if self._left < 1 or n_tokens > self._max_tokens - self._audio_tokens:
                raise _CutShortError
            part.text += delta
            self._text_tokens = n_tokens
            self.conversation.emit(Delta(**self._ids(part), delta=delta))
        if label is not None:
            await self._run_mcp(part)
        self._close_part("completed")

    async def _run_mcp(self, part: _Part) -> None:
        """Run an MCP call whose arguments are complete, or ask for approval."""
        self.conversation.emit(events.ResponseMcpCallArgumentsDone(**self._ids(part), arguments=part.text))
        part.item = replace(part.item, arguments=part.text)
        if self.mcp.needs_approval(part.item) and not self.outside:
            part.waits = True
            self.mcp.ask(part.item, part.index)
            return
        part.runs = True
        part.item = await self.mcp.run(part.item, part.index)
        part.runs = False

    def _close_part(self, status: str) -> None:
        """Send the `done` events of the open item."""
        part, self._current = self._current, None
        if part is None:
            return
        emit, ids = self.conversation.emit, self._ids(part)
        if part.spoken and status == "completed":
            self._all.world.exact.learn(part.text, np.concatenate(part.spoken))
        if part.item.type == "function_call":
            named: dict[str, Any] = {"name": part.item.name} if self.conversation.dialect == "ga" else {}
            emit(events.ResponseFunctionCallArgumentsDone(**ids, arguments=part.text, **named))
            item = replace(part.item, status=status, arguments=part.text)
        elif part.item.type == "mcp_call":
            item = self._ended_mcp(part, status)
        else:
            item = replace(part.item, status=status, content=(self._close_content(part, ids),))
        if not self.outside and self.conversation.dialect == "ga" and not part.waits:
            self.conversation.end(item)
        emit(events.ResponseOutputItemDone(response_id=self.id, output_index=part.index, item=item))
        self._done.append(item)

    def _ended_mcp(self, part: _Part, status: str) -> Item:
        """Return the item of an MCP call that ends with its response."""
        if status == "completed":
            return part.item
        if part.runs:
            self.conversation.emit(events.ResponseMcpCallFailed(item_id=str(part.item.id), output_index=part.index))
        error = {"type": "tool_execution_error", "message": "The response ended before the call."}
        return replace(part.item, arguments=part.text, output=None, error=error)

    def _close_content(self, part: _Part, ids: dict[str, Any]) -> ContentPart:
        emit = self.conversation.emit
        if self._modality == "text":
            emit(events.ResponseOutputTextDone(**ids, text=part.text))
        else:
            emit(events.ResponseOutputAudioDone(**ids))
            emit(events.ResponseOutputAudioTranscriptDone(**ids, transcript=part.text))
        content = self._content(part.text)
        emit(events.ResponseContentPartDone(**ids, part=content))
        return replace(content, type=f"output_{self._modality}")

    def _content(self, text: str) -> ContentPart:
        """Return a part as the events of parts show it; items name its type with ``output_``."""
        words: Any = {"text" if self._modality == "text" else "transcript": text}
        return ContentPart(type=self._modality, **words)

    def _finish(self, status: str, **reason: Any) -> None:
        self._close_part("completed" if status == "completed" else "incomplete")
        self.finished = True
        details = StatusDetails(type=status, **reason) if reason else None
        response = self._describe(status, status_details=details, usage=self._usage())
        self.conversation.emit(events.ResponseDone(response=response))
        self._all.done(self)

    def _usage(self) -> Usage:
        made = TokenDetails(text_tokens=self._text_tokens, audio_tokens=math.ceil(self._audio_tokens))
        return token_usage(self._input_tokens, made)


def _failure(error: Exception) -> ErrorDetail:
    code = getattr(error, "code", None)
    if isinstance(error, ContextTooLongError):
        return ErrorDetail(type="invalid_request_error", code="context_length_exceeded", message=str(error))  # (u)
    return ErrorDetail(type="server_error", code=code if isinstance(code, str) else None, message=str(error))
