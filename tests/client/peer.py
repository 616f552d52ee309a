"""Realtime service of raw JSON that misbehaves as a test asks; it shares no code with rtnb.

It speaks the GA dialect in the order that real services were seen to use. A test chooses what goes wrong, e.g.
``Peer(drop={"session.updated": 1})``, or gives a function over the outgoing messages as `script`.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]
Script = Callable[[list[Message]], list[Message]]

CHUNK = base64.b64encode(bytes(4_800)).decode()
"""100 ms of silence as PCM16 at 24 kHz."""

CHUNK_MS = 100
MINIMUM_MS = 100
"""Shortest audio that can be committed."""

TURN_MS = 1_200
"""Audio of one turn where turn detection is on: a second of speech and the silence that ends it."""

REPLY = ("Hello", " there.")
"""Transcript of a response in its pieces; each piece comes with one `CHUNK` of audio."""

FORMAT = {"type": "audio/pcm", "rate": 24_000}
USAGE = {"total_tokens": 12, "input_tokens": 7, "output_tokens": 5}


def failure(
    code: str | None, message: str, *, param: str | None = None, kind: str = "invalid_request_error"
) -> Message:
    """Build an `error` event without an event_id; `Peer` adds the id where it names errors."""
    return {"type": "error", "error": {"type": kind, "code": code, "message": message, "param": param}}


class Peer:
    """Service on a loopback socket, for one session at a time.

    Parameters
    ----------
    drop, duplicate : mapping of str to int
        Event type -> how many of the next events of that type are lost, or sent twice.
    delay_s : mapping of str to sequence of float
        Event type -> delays of the next events of that type; later events overtake a delayed one.
    refuse : mapping of str to sequence of error events
        Client event type -> refusals of the next events of that type; see `failure`.
    script : callable, optional
        Maps the messages that answer one client event to those that are sent.
    outputs : sequence
        Contents of the next responses: pieces of a transcript, or a list of function calls (name, arguments).
    greeting : sequence of messages, optional
        Sent when a client connects, instead of `session.created`.
    name_errors, echo_metadata, floats, silent : bool
        Errors carry the event_id of their cause; responses repeat their metadata; every whole number is written as
        a float; no client event is answered. All can be changed at any time.
    pace_s : float, default 0
        Time between two pieces of a response; 0 sends a whole response at once.
    turn_detection : mapping, optional
        With it, the peer commits a turn and answers it whenever `TURN_MS` of audio arrived.
    """

    def __init__(
        self,
        *,
        drop: Mapping[str, int] | None = None,
        duplicate: Mapping[str, int] | None = None,
        delay_s: Mapping[str, Sequence[float]] | None = None,
        refuse: Mapping[str, Sequence[Message]] | None = None,
        script: Script | None = None,
        outputs: Sequence[Any] = (),
        greeting: Sequence[Message] | None = None,
        name_errors: bool = True,
        echo_metadata: bool = True,
        floats: bool = False,
        silent: bool = False,
        pace_s: float = 0.0,
        turn_detection: Message | None = None,
    ) -> None:
        self.drop = dict(drop or {})
        self.duplicate = dict(duplicate or {})
        self.delay_s = {kind: list(delays) for kind, delays in (delay_s or {}).items()}
        self.refuse = {kind: list(errors) for kind, errors in (refuse or {}).items()}
        self.script = script
        self.outputs = list(outputs)
        self.greeting = greeting
        self.name_errors, self.echo_metadata, self.floats, self.silent = name_errors, echo_metadata, floats, silent
        self.pace_s = pace_s
        self.heard: list[Message] = []
        """Every client event so far, of all connections."""
        self.paths: list[str] = []
        """Path and query of each connection."""
        self.items: dict[str, Message] = {}
        self.active: Message | None = None
        """Response in progress within the conversation."""
        self._turn_detection = turn_detection
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
        audio = {"input": {"format": FORMAT, "turn_detection": self._turn_detection}, "output": {"format": FORMAT}}
        self.session: Message = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._id("sess"),
            "model": "peer",
            "expires_at": 1_800_003_600,
            "output_modalities": ["audio"],
            "audio": audio,
        }
        created = [{"type": "session.created", "session": self.session}]
        try:
            await self.send(*(created if self.greeting is None else self.greeting))
            async for text in socket:
                await self._take(json.loads(text))
        except ConnectionClosed:
            return

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
            if self._due(self.drop, kind):
                continue
            texts = [self._text(message)] * (2 if self._due(self.duplicate, kind) else 1)
            if delays := self.delay_s.get(kind):
                self._spawn(self._write(texts, delays.pop(0)))
            else:
                await self._write(texts)

    @staticmethod
    def _due(faults: dict[str, int], kind: str) -> bool:
        left = faults.get(kind, 0)
        faults[kind] = left - 1
        return left > 0

    def _text(self, message: Message) -> str:
        named = {"event_id": self._id("event"), **message}
        return json.dumps(as_floats(named) if self.floats else named)

    async def _write(self, texts: list[str], delay_s: float = 0.0) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
        try:
            for text in texts:
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
                answer["error"].setdefault("event_id", message.get("event_id"))
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
        if self._turn_detection is None or self._buffered_ms < TURN_MS:
            return []
        self._buffered_ms = 0.0
        return self.turn()

    def _on_input_audio_buffer_commit(self, message: Message) -> list[Message]:
        if self._buffered_ms < MINIMUM_MS:
            return [failure("input_audio_buffer_commit_empty", "Error committing input audio buffer: too small.")]
        self._buffered_ms = 0.0
        return self._committed(self._id("item"))

    def _on_input_audio_buffer_clear(self, message: Message) -> list[Message]:
        self._buffered_ms = 0.0
        return [{"type": "input_audio_buffer.cleared"}]

    def _on_conversation_item_create(self, message: Message) -> list[Message]:
        return self._added({"id": self._id("item"), "status": "completed", **message["item"]})

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
            text = f"Conversation already has an active response in progress: {self.active['id']}"
            return [failure("conversation_already_has_active_response", text)]
        return self.respond(wanted)

    def _on_response_cancel(self, message: Message) -> list[Message]:
        response = self.active
        if response is None or message.get("response_id", response["id"]) != response["id"]:
            return [failure("response_cancel_not_active", "Cancellation failed: no active response found")]
        self.finish()
        return self._ending(response, status="cancelled", reason="client_cancelled")

    def finish(self) -> None:
        """Forget the response in progress; nothing more of it is sent."""
        if self._speaking is not None:
            self._speaking.cancel()
        self.active = self._speaking = None

    # --- turns and responses ------------------------------------------------------------------------------------------

    def turn(self) -> list[Message]:
        """Return the events of a turn that turn detection ended, and of the response it began."""
        item_id = self._id("item")
        started = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": item_id}
        stopped = {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": int(self._total_ms), "item_id": item_id}
        return [started, stopped, *self._committed(item_id), *self.respond({})]

    def _committed(self, item_id: str) -> list[Message]:
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        committed = {"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": self._last_id}
        return [committed, *self._added(item)]

    @property
    def _last_id(self) -> str | None:
        return next(reversed(self.items), None)

    def _added(self, item: Message, *, done: bool = True) -> list[Message]:
        body = {"previous_item_id": self._last_id, "item": item}
        self.items[item["id"]] = item
        kinds = ("conversation.item.added", "conversation.item.done") if done else ("conversation.item.added",)
        return [{"type": kind, **body} for kind in kinds]

    def respond(self, wanted: Message) -> list[Message]:
        """Begin a response and return its events; with a pace, the rest follows on its own."""
        outside = wanted.get("conversation") == "none"
        response = {
            "object": "realtime.response",
            "id": self._id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": None if outside else "conv_peer",
            "output_modalities": wanted.get("output_modalities", self.session.get("output_modalities")),
            "usage": None,
            "metadata": wanted.get("metadata") if self.echo_metadata else None,
        }
        output = self.outputs.pop(0) if self.outputs else REPLY
        self.active = self.active if outside else response
        created = {"type": "response.created", "response": {**response}}
        if output and not isinstance(output[0], str):
            return [created, *self._calls(response, output)]
        item = {"id": self._id("item"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        response["item"] = item
        head = [created, {"type": "response.output_item.added", **self._at(response), "item": {**item}}]
        if not outside:
            head += self._added(item, done=False)
        part = {"type": "text", "text": ""} if self._writes(response) else {"type": "audio", "transcript": ""}
        head.append({"type": "response.content_part.added", **self._in(response), "part": part})
        if self.pace_s:
            task = self._spawn(self._speak(response, output))
            self._speaking = self._speaking if outside else task
            return head
        pieces = [delta for piece in output for delta in self._deltas(response, piece)]
        return [*head, *pieces, *self._ending(response)]

    async def _speak(self, response: Message, pieces: Sequence[str]) -> None:
        for piece in pieces:
            await asyncio.sleep(self.pace_s)
            await self.send(*self._deltas(response, piece))
        await asyncio.sleep(self.pace_s)
        self._speaking = None
        await self.send(*self._ending(response))

    @staticmethod
    def _writes(response: Message) -> bool:
        return response["output_modalities"] == ["text"]

    @staticmethod
    def _at(response: Message) -> Message:
        return {"response_id": response["id"], "output_index": 0}

    def _in(self, response: Message) -> Message:
        return {**self._at(response), "item_id": response["item"]["id"], "content_index": 0}

    def _deltas(self, response: Message, piece: str) -> list[Message]:
        response["said"] = response.get("said", "") + piece
        if self._writes(response):
            return [{"type": "response.output_text.delta", **self._in(response), "delta": piece}]
        return [
            {"type": "response.output_audio_transcript.delta", **self._in(response), "delta": piece},
            {"type": "response.output_audio.delta", **self._in(response), "delta": CHUNK},
        ]

    def _ending(self, response: Message, *, status: str = "completed", reason: str | None = None) -> list[Message]:
        said, inside = response.pop("said", ""), self._in(response)
        item = response.pop("item")
        if self._writes(response):
            text = {"text": said}
            dones = [{"type": "response.output_text.done", **inside, **text}]
        else:
            text = {"transcript": said}
            transcript = {"type": "response.output_audio_transcript.done", **inside, **text}
            dones = [{"type": "response.output_audio.done", **inside}, transcript]
        kind = "text" if self._writes(response) else "audio"  # a part and the content of an item differ in their names
        dones.append({"type": "response.content_part.done", **inside, "part": {"type": kind, **text}})
        content = [{"type": f"output_{kind}", **text}]
        item |= {"status": "completed" if status == "completed" else "incomplete", "content": content}
        return [*dones, *self._item_done(response, item), self._done(response, [item], status, reason)]

    def _item_done(self, response: Message, item: Message) -> list[Message]:
        done = {"type": "response.output_item.done", **self._at(response), "item": {**item}}
        if response["conversation_id"] is None:
            return [done]
        return [{"type": "conversation.item.done", "previous_item_id": None, "item": {**item}}, done]

    def _done(self, response: Message, items: list[Message], status: str, reason: str | None) -> Message:
        self.active = None if self.active is response else self.active
        details = {"type": status, "reason": reason} if reason else None
        ended = {**response, "status": status, "status_details": details, "output": items, "usage": USAGE}
        return {"type": "response.done", "response": ended}

    def _calls(self, response: Message, calls: Sequence[tuple[str, str]]) -> list[Message]:
        out, items = [], []
        for name, arguments in calls:
            item = {"id": self._id("item"), "type": "function_call", "call_id": self._id("call"), "name": name}
            item |= {"status": "completed", "arguments": arguments}
            started = {**item, "status": "in_progress", "arguments": ""}
            place = {**self._at(response), "item_id": item["id"], "call_id": item["call_id"]}
            out.append({"type": "response.output_item.added", **self._at(response), "item": started})
            out += self._added(item, done=False)
            out.append({"type": "response.function_call_arguments.delta", **place, "delta": arguments})
            out.append({"type": "response.function_call_arguments.done", **place, "name": name, "arguments": arguments})
            out += self._item_done(response, item)
            items.append(item)
        return [*out, self._done(response, items, "completed", None)]


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def as_floats(value: Any) -> Any:
    """Return a JSON value in which every whole number is a float."""
    if isinstance(value, dict):
        return {key: as_floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_floats(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
