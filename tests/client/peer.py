"""Realtime service of raw JSON that misbehaves as a test asks; it shares no code with rtnb.

It sends its events in the order that real services were seen to use. A test chooses what goes wrong, e.g.
``Peer(drop={"session.updated": 1})``, gives a function over the outgoing messages as `script`, or sends the events of
each response itself (`by_hand`).
"""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]
Script = Callable[[list[Message]], list[Message]]

CHUNK_MS = 100
CHUNK = base64.b64encode(bytes(4_800)).decode()
"""100 ms of silence as PCM16 at 24 kHz."""

MINIMUM_MS = 100
"""Shortest audio that can be committed."""

TURN_MS = 1_200
"""Audio of one turn where turn detection is on: a second of speech and the silence that ends it."""

REPLY = ("Hello", " there.")
"""Transcript of a response in its pieces; each piece comes with one `CHUNK` of audio."""

BUSY = "conversation_already_has_active_response"
EXPIRES_AT = 1_800_003_600
FORMAT = {"type": "audio/pcm", "rate": 24_000}
USAGE = {"total_tokens": 12, "input_tokens": 7, "output_tokens": 5}

OLDER_NAMES = {
    '"conversation.item.added"': '"conversation.item.created"',
    '"response.output_audio': '"response.audio',
    '"response.output_text': '"response.text',
    '"type": "output_audio"': '"type": "audio"',
    '"type": "output_text"': '"type": "text"',
}
"""Text of a message in the GA dialect -> in the preview dialect."""


def failure(
    code: str | None, message: str, *, param: str | None = None, kind: str = "invalid_request_error"
) -> Message:
    """Build an `error` event without an event_id; `Peer` adds the id where it names errors."""
    return {"type": "error", "error": {"type": kind, "code": code, "message": message, "param": param}}


@dataclass(eq=False)
class Running:
    """Response in progress: its values, its items, and the words of the last item."""

    values: Message
    items: list[Message] = field(default_factory=list)
    words: str = ""

    @property
    def id(self) -> str:
        return str(self.values["id"])

    @property
    def written(self) -> bool:
        """True for text without audio."""
        return ["text"] in (self.values.get("output_modalities"), self.values.get("modalities"))

    @property
    def at(self) -> Message:
        """Fields of an event about the last item."""
        return {"response_id": self.id, "output_index": max(0, len(self.items) - 1)}

    @property
    def inside(self) -> Message:
        """Fields of an event about the content of the last item."""
        return {**self.at, "item_id": self.items[-1]["id"], "content_index": 0}


@dataclass(eq=False)
class Peer:
    """Service on a loopback socket, for one session at a time; every option can be changed at any time.

    Parameters
    ----------
    dialect : {"ga", "preview"}
        Names of the events and settings on the wire; tests use those of GA.
    drop : dict of str to int
        Event type -> how many of the next events of that type are lost.
    delay_s : dict of str to list of float
        Event type -> delays of the next events of that type; later events overtake a delayed one.
    refuse : dict of str to list of error events
        Client event type -> refusals of the next events of that type; see `failure`.
    script : callable, optional
        Maps the messages that answer one client event to those that are sent.
    outputs : list
        Contents of the next responses: pieces of a transcript, or a list of function calls (name, arguments).
    greeting : list of messages, optional
        Sent when a client connects, instead of `session.created`.
    name_errors, echo_metadata, floats, silent, by_hand : bool
        Errors carry the event_id of their cause; responses repeat their metadata; every whole number is written as
        a float; no client event is answered; `response.create` is left to the test (see `begin`).
    pace_s : float, default 0
        Time between two pieces of a response; 0 sends a whole response at once.
    turn_detection : mapping, optional
        With it, the peer commits a turn and answers it whenever `TURN_MS` of audio arrived.
    chunk : str
        Audio of one piece, in base64.
    """

    dialect: str = "ga"
    drop: dict[str, int] = field(default_factory=dict)
    delay_s: dict[str, list[float]] = field(default_factory=dict)
    refuse: dict[str, list[Message]] = field(default_factory=dict)
    script: Script | None = None
    outputs: list[Any] = field(default_factory=list)
    greeting: list[Message] | None = None
    name_errors: bool = True
    echo_metadata: bool = True
    floats: bool = False
    silent: bool = False
    by_hand: bool = False
    pace_s: float = 0.0
    turn_detection: Message | None = None
    chunk: str = CHUNK

    def __post_init__(self) -> None:
        self.heard: list[Message] = []
        """Every client event so far, of all connections."""
        self.paths: list[str] = []
        """Path and query of each connection."""
        self.items: dict[str, Message] = {}
        self.active: Running | None = None
        """Response in progress within the conversation."""
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._speaking: asyncio.Task[None] | None = None
        self._socket: ServerConnection
        self._server: Server

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._server = await serve(self._talk, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=None)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Address of the realtime path."""
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/realtime"

    async def close(self, code: int = 1011, reason: str = "") -> None:
        """End the connection with a close code."""
        await self._socket.close(code, reason)

    async def _talk(self, socket: ServerConnection) -> None:
        for task in self._tasks:  # of a connection that ended
            task.cancel()
        self._socket, self._buffered_ms, self._total_ms = socket, 0.0, 0.0
        self.active = self._speaking = None
        self.items.clear()
        self.paths.append(socket.request.path)
        names = {"object": "realtime.session", "id": self._id("sess"), "model": "peer", "expires_at": EXPIRES_AT}
        self.session: Message = {**names, **self._settings()}
        created = [{"type": "session.created", "session": self.session}]
        try:
            await self.send(*(created if self.greeting is None else self.greeting))
            async for text in socket:
                await self._take(json.loads(text))
        except ConnectionClosed:
            return

    def _settings(self) -> Message:
        if self.dialect == "preview":
            formats = {"input_audio_format": "pcm16", "output_audio_format": "pcm16"}
            return {"modalities": ["text", "audio"], "turn_detection": self.turn_detection, "voice": "alloy", **formats}
        hearing = {"format": FORMAT, "turn_detection": self.turn_detection}
        audio = {"input": hearing, "output": {"format": FORMAT, "voice": "alloy"}}
        return {"type": "realtime", "output_modalities": ["audio"], "audio": audio}

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name="peer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _id(self, prefix: str) -> str:
        return f"{prefix}_peer_{next(self._numbers)}"

    # --- out: everything that can go wrong on the way -----------------------------------------------------------------

    async def send(self, *messages: Message) -> None:
        """Send messages with the faults that the test chose."""
        for message in self.script(list(messages)) if self.script else messages:
            kind = str(message.get("type"))
            left = self.drop.get(kind, 0)
            self.drop[kind] = left - 1
            if left > 0 or (self.dialect == "preview" and kind == "conversation.item.done"):
                continue
            if delays := self.delay_s.get(kind):
                self._spawn(self.write(self._text(message), delays.pop(0)))
            else:
                await self.write(self._text(message))

    def _text(self, message: Message) -> str:
        named = {"event_id": self._id("event"), **message}
        text = json.dumps(as_floats(named) if self.floats else named)
        for name, older in OLDER_NAMES.items() if self.dialect == "preview" else ():
            text = text.replace(name, older)
        return text

    async def write(self, text: str, delay_s: float = 0.0) -> None:
        """Send a text as it is."""
        if delay_s:
            await asyncio.sleep(delay_s)
        try:
            await self._socket.send(text)
        except ConnectionClosed:
            return

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        self.heard.append(message)
        if self.silent:
            return
        if refusals := self.refuse.get(message["type"]):
            answers = [refusals.pop(0)]
        else:
            answers = getattr(self, "_on_" + message["type"].replace(".", "_"))(message)
        for answer in answers:
            if answer["type"] == "error" and self.name_errors:
                answer["error"] = {**answer["error"], "event_id": message.get("event_id")}
        await self.send(*answers)

    def asked(self, kind: str) -> list[Message]:
        """Return the client events of one type so far."""
        return [message for message in self.heard if message["type"] == kind]

    def _on_session_update(self, message: Message) -> list[Message]:
        self.session = _merged(self.session, message["session"])
        return [{"type": "session.updated", "session": self.session}]

    def _on_input_audio_buffer_append(self, message: Message) -> list[Message]:
        audio_ms = len(base64.b64decode(message["audio"])) / 48
        self._buffered_ms += audio_ms
        self._total_ms += audio_ms
        if self.turn_detection is None or self._buffered_ms < TURN_MS:
            return []
        return self.turn()

    def _on_input_audio_buffer_commit(self, message: Message) -> list[Message]:
        if self._buffered_ms < MINIMUM_MS:
            return [failure("input_audio_buffer_commit_empty", "Error committing input audio buffer: too small.")]
        return self._committed(self._id("item"))

    def _on_input_audio_buffer_clear(self, message: Message) -> list[Message]:
        self._buffered_ms = 0.0
        return [{"type": "input_audio_buffer.cleared"}]

    def _on_conversation_item_create(self, message: Message) -> list[Message]:
        item = {"id": self._id("item"), "status": "completed", **message["item"]}
        return self.added(item, after=message.get("previous_item_id"))

    def _on_conversation_item_retrieve(self, message: Message) -> list[Message]:
        return self._of_item(message, lambda item: {"type": "conversation.item.retrieved", "item": item})

    def _on_conversation_item_truncate(self, message: Message) -> list[Message]:
        cut = {name: message[name] for name in ("item_id", "content_index", "audio_end_ms")}
        return self._of_item(message, lambda item: {"type": "conversation.item.truncated", **cut})

    def _on_conversation_item_delete(self, message: Message) -> list[Message]:
        answer = {"type": "conversation.item.deleted", "item_id": message["item_id"]}
        return self._of_item(message, lambda item: self.items.pop(item["id"]) and answer)

    def _of_item(self, message: Message, answer: Callable[[Message], Message]) -> list[Message]:
        item = self.items.get(message["item_id"])
        return [answer(item) if item else failure("item_not_found", "There is no such item.", param="item_id")]

    def _on_response_create(self, message: Message) -> list[Message]:
        wanted = message.get("response") or {}
        if self.active is not None and wanted.get("conversation") != "none":
            return [failure(BUSY, f"Conversation already has an active response in progress: {self.active.id}")]
        return [] if self.by_hand else self.respond(wanted)

    def _on_response_cancel(self, message: Message) -> list[Message]:
        response = self.active
        if response is None or message.get("response_id", response.id) != response.id:
            return [failure("response_cancel_not_active", "Cancellation failed: no active response found")]
        self.finish()
        return self._ending(response, status="cancelled", reason="client_cancelled")

    def finish(self) -> None:
        """Forget the response in progress; nothing more of it is sent."""
        if self._speaking is not None:
            self._speaking.cancel()
        self.active = self._speaking = None

    # --- turns --------------------------------------------------------------------------------------------------------

    def turn(self) -> list[Message]:
        """Return the events of a turn that turn detection ended, and of the response it began, if it does."""
        item_id = self._id("item")
        responds = (self.turn_detection or {}).get("create_response", True)
        return [self.speech(item_id), *self.turn_end(item_id), *(self.respond({}) if responds else ())]

    def speech(self, item_id: str) -> Message:
        """Return the event of speech that begins."""
        return {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": item_id}

    def turn_end(self, item_id: str) -> list[Message]:
        """Return the events of speech that ends, and is committed."""
        stopped = {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": int(self._total_ms), "item_id": item_id}
        return [stopped, *self._committed(item_id)]

    def _committed(self, item_id: str) -> list[Message]:
        self._buffered_ms = 0.0
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        committed = {"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": self._last_id}
        return [committed, *self.added(item)]

    @property
    def _last_id(self) -> str | None:
        return next(reversed(self.items), None)

    def added(self, item: Message, *, after: str | None = None, done: bool = True) -> list[Message]:
        """Return the events of an item that is new in the conversation."""
        body = {"previous_item_id": after or self._last_id, "item": item}
        self.items[item["id"]] = item
        kinds = ("conversation.item.added", "conversation.item.done") if done else ("conversation.item.added",)
        return [{"type": kind, **body} for kind in kinds]

    # --- responses ----------------------------------------------------------------------------------------------------

    def respond(self, wanted: Message) -> list[Message]:
        """Begin a response and return its events; with a pace, the rest follows on its own."""
        response, created = self._begin(wanted)
        output = self.outputs.pop(0) if self.outputs else REPLY
        if output and not isinstance(output[0], str):
            return [created, *self._calls(response, output), self._done(response)]
        head = [created, *self._item_added(response)]
        if self.pace_s:
            task = self._spawn(self._speak(response, output))
            self._speaking = task if self.active is response else self._speaking
            return head
        pieces = [delta for piece in output for delta in self._deltas(response, piece)]
        return [*head, *pieces, *self._ending(response)]

    async def begin(self, wanted: Message | None = None) -> Running:
        """Begin a response; the test sends the rest of it: `add_item`, `speak`, `end`."""
        response, created = self._begin(wanted or {})
        await self.send(created)
        return response

    async def add_item(self, response: Running) -> str:
        """Begin an item of a response and return its id."""
        await self.send(*self._item_added(response))
        return str(response.items[-1]["id"])

    async def speak(self, response: Running, ms: float, words: str = "") -> None:
        """Send audio (silence) and words of the last item of a response, in one delta each."""
        transcript, audio = self._deltas(response, words)
        audio["delta"] = base64.b64encode(bytes(48 * int(ms))).decode()
        await self.send(*([transcript] if words else []), *([audio] if ms else []))

    async def end(self, response: Running, **how: Any) -> None:
        """End a response; see `_ending` for the options."""
        await self.send(*self._ending(response, **how))

    def _begin(self, wanted: Message) -> tuple[Running, Message]:
        outside = wanted.get("conversation") == "none"
        modalities, spoken = "output_modalities", {"audio": {"output": self.session.get("audio", {}).get("output")}}
        if self.dialect == "preview":
            modalities, spoken = "modalities", {"output_audio_format": self.session["output_audio_format"]}
        response = {
            "object": "realtime.response",
            "id": self._id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": None if outside else "conv_peer",
            modalities: wanted.get(modalities, self.session.get(modalities)),
            "usage": None,
            "metadata": wanted.get("metadata") if self.echo_metadata else None,
            **spoken,
        }
        running = Running(response)
        self.active = self.active if outside else running
        return running, {"type": "response.created", "response": response}

    def _item_added(self, response: Running) -> list[Message]:
        item = {"id": self._id("item"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        response.items.append(item)
        response.words = ""
        added = [{"type": "response.output_item.added", **response.at, "item": {**item}}]
        if response.values["conversation_id"]:
            added += self.added(item, done=False)
        part = {"type": "text", "text": ""} if response.written else {"type": "audio", "transcript": ""}
        return [*added, {"type": "response.content_part.added", **response.inside, "part": part}]

    async def _speak(self, response: Running, pieces: Sequence[str]) -> None:
        for piece in pieces:
            await asyncio.sleep(self.pace_s)
            await self.send(*self._deltas(response, piece))
        await asyncio.sleep(self.pace_s)
        self._speaking = None
        await self.send(*self._ending(response))

    def _deltas(self, response: Running, piece: str) -> list[Message]:
        response.words += piece
        if response.written:
            return [{"type": "response.output_text.delta", **response.inside, "delta": piece}]
        return [
            {"type": "response.output_audio_transcript.delta", **response.inside, "delta": piece},
            {"type": "response.output_audio.delta", **response.inside, "delta": self.chunk},
        ]

    def _ending(self, response: Running, *, status: str = "completed", **details: Any) -> list[Message]:
        """Return the events that end a response; details are e.g. `reason` and `error`."""
        ending = self._item_ending(response, status) if response.items else []
        return [*ending, self._done(response, status, **details)]

    def _item_ending(self, response: Running, status: str) -> list[Message]:
        if response.written:
            text = {"text": response.words}
            dones = [{"type": "response.output_text.done", **response.inside, **text}]
        else:
            text = {"transcript": response.words}
            transcript = {"type": "response.output_audio_transcript.done", **response.inside, **text}
            dones = [{"type": "response.output_audio.done", **response.inside}, transcript]
        kind = "text" if response.written else "audio"  # a part and the content of an item differ in their names
        dones.append({"type": "response.content_part.done", **response.inside, "part": {"type": kind, **text}})
        whole = {"status": "completed" if status == "completed" else "incomplete"}
        response.items[-1] |= {**whole, "content": [{"type": f"output_{kind}", **text}]}
        return [*dones, *self._item_done(response)]

    def _item_done(self, response: Running) -> list[Message]:
        item = {**response.items[-1]}
        done = {"type": "response.output_item.done", **response.at, "item": item}
        if response.values["conversation_id"] is None:
            return [done]
        return [{"type": "conversation.item.done", "previous_item_id": None, "item": item}, done]

    def _done(self, response: Running, status: str = "completed", **details: Any) -> Message:
        self.active = None if self.active is response else self.active
        why = {"type": status, **details} if details else None
        ended = {**response.values, "status": status, "status_details": why, "output": response.items, "usage": USAGE}
        return {"type": "response.done", "response": ended}

    def _calls(self, response: Running, calls: Sequence[tuple[str, str]]) -> list[Message]:
        out: list[Message] = []
        for name, arguments in calls:
            item = {"id": self._id("item"), "type": "function_call", "call_id": self._id("call"), "name": name}
            item |= {"status": "completed", "arguments": arguments}
            response.items.append(item)
            started = {**item, "status": "in_progress", "arguments": ""}
            place = {**response.at, "item_id": item["id"], "call_id": item["call_id"]}
            out.append({"type": "response.output_item.added", **response.at, "item": started})
            out += self.added(item, done=False)
            out.append({"type": "response.function_call_arguments.delta", **place, "delta": arguments})
            out.append({"type": "response.function_call_arguments.done", **place, "name": name, "arguments": arguments})
            out += self._item_done(response)
        return out


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)) or old.get("type") != new.get("type", old.get("type")):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def as_floats(value: Any) -> Any:
    """Return a JSON value in which every whole number is a float."""
    if isinstance(value, dict):
        return {key: as_floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_floats(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
