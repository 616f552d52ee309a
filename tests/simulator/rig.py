"""A session of the simulator without a socket, and a client that follows every frame it sends."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Coroutine, Iterator
from typing import Any

import numpy as np
import openai.types.beta.realtime as beta
import openai.types.realtime as ga
import pydantic

from rtnb.audio import babble, codec, resample
from rtnb.protocol import Connection, Item, ServerVad, SessionConfig, events
from rtnb.protocol.values import ContentPart, ResponseConfig
from rtnb.simulator.faults import Close, Fault, LatencyProfile
from rtnb.simulator.parts import World
from rtnb.simulator.responder import RulesResponder
from rtnb.simulator.scenario import Scenario
from rtnb.simulator.session import ServiceSession
from rtnb.simulator.voice import BabbleVoice

FRAME_MS = 32
PATIENCE_S = 20.0  # how long a test waits for an event; far more than any needs, even on a busy machine


@functools.cache
def union_of(dialect: str) -> pydantic.TypeAdapter[Any]:
    """What the stock client's types say about a server event."""
    return pydantic.TypeAdapter(ga.RealtimeServerEvent if dialect == "ga" else beta.RealtimeServerEvent)


@functools.cache
def spoken(text: str = "hello there", *, silence_ms: int = 1500, lead_ms: int = 300) -> np.ndarray[Any, Any]:
    """A user's turn at 24 kHz: quiet, babble, quiet."""
    audio = babble(text, seed=3).audio
    return np.concatenate([np.zeros(24 * lead_ms, np.float32), audio, np.zeros(24 * silence_ms, np.float32)])


def encoded(audio: np.ndarray[Any, Any], media_type: str = "audio/pcm") -> bytes:
    """Audio at 24 kHz as the wire carries it."""
    wire = codec(media_type)
    return wire.encode(resample(audio, from_rate_hz=24_000, to_rate_hz=wire.rate_hz))


def chunks(data: bytes, size: int = 4800) -> Iterator[bytes]:
    """The data in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run what must not wait for anything: the speech of one session alone is taken at once."""
    try:
        work.send(None)
    except StopIteration:
        return
    finally:
        work.close()
    raise AssertionError("it waits")


def world(**options: Any) -> World:
    """What sessions share in a test: no waiting, a babbling voice."""
    scenario = Scenario.from_dict(options.pop("scenario", {"steps": []}))
    latency = LatencyProfile.parse(options.pop("latency", "fast"))

    def behave(number: int) -> Any:
        return RulesResponder(seed=number)

    options.setdefault("faults", ())
    options["faults"] = tuple(Fault.parse(f) for f in options["faults"])
    made = {"voice": BabbleVoice(seed=0), "make_responder": behave, "latency": latency, "scenario": scenario, **options}
    return World(**made)


class Rig:
    """A session and its client.

    Every frame is checked against the stock client's types; at the end the two states are compared (law 2).
    """

    def __init__(
        self,
        shared: World | None = None,
        *,
        dialect: Any = "ga",
        strict: bool = True,
        number: int = 1,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        model = "test" if dialect == "ga" else "gpt-4o-realtime-preview"  # the beta types know a few names only
        session = {"model": model, "started_at": 1_800_000_000, **more}
        self.session = ServiceSession(shared or world(), number=number, dialect=dialect, **session)
        self.client = Connection("client", dialect=dialect, webrtc=more.get("webrtc", False))
        self.dialect = dialect
        self.strict = strict
        self.settings = settings
        self.in_step = True
        """Compare the states at the end; False where the client counted audio that the service refused or took away."""
        self.frames: list[dict[str, Any]] = []
        self.events: list[Any] = []
        self.close: Close | None = None
        self.patience_s = PATIENCE_S
        self._outgoing = self.session.outgoing.texts()

    async def __aenter__(self) -> Rig:
        await self.until("session.created" if self.dialect == "ga" else "conversation.created")
        if self.settings is not None:
            await self.set(**self.settings)
        return self

    async def __aexit__(self, failure: object, *_: object) -> None:
        try:
            if failure is None and self.in_step and self.close is None:
                await self.catch_up()
                self.same()
        finally:
            await self._outgoing.aclose()
            await self.session.aclose()

    def send(self, event: events.Event) -> None:
        at_once(self.session.receive(self.client.send(event)))

    async def next(self) -> Any:
        """The next event, or None where the service hung up."""
        async with asyncio.timeout(self.patience_s):
            out = await anext(self._outgoing)
        if isinstance(out, Close):
            self.close = out
            return None
        frame = json.loads(out)
        if self.strict:
            union_of(self.dialect).validate_json(out, strict=True)
        self.frames.append(frame)
        self.events.append(self.client.receive(out))
        return self.events[-1]

    async def until(self, *types: str) -> list[str]:
        """Read on to the first of these wire types (of the dialect); the types on the way."""
        seen: list[str] = []
        while not seen or seen[-1] not in types:
            if await self.next() is None:
                return [*seen, "closed"]
            seen.append(self.frames[-1]["type"])
        return seen

    async def catch_up(self) -> None:
        """Read what waits."""
        while self.session.outgoing.n_waiting:
            await self.next()

    async def rest(self) -> list[str]:
        """What else is there, once nothing more can come by itself."""
        seen: list[str] = []
        while True:
            for _ in range(5):  # what is due now runs, tasks that it starts, too
                await asyncio.sleep(0)
            if self.session.idle and self.session.outgoing.n_waiting == 0:
                return seen
            await self.next()
            seen.append(self.frames[-1]["type"])

    @property
    def types(self) -> list[str]:
        """The wire types of all frames so far."""
        return [frame["type"] for frame in self.frames]

    def of(self, wire_type: str) -> list[dict[str, Any]]:
        """All frames of a type so far."""
        return [frame for frame in self.frames if frame["type"] == wire_type]

    def last(self, wire_type: str) -> dict[str, Any]:
        return self.of(wire_type)[-1]

    async def refusal(self) -> dict[str, Any]:
        """Read on to the next error; its body."""
        await self.until("error")
        return self.last("error")["error"]  # type: ignore[no-any-return]

    async def retrieved(self, item_id: str) -> Any:
        """Ask for an item; its first part."""
        self.send(events.ConversationItemRetrieve(item_id=item_id))
        await self.until("conversation.item.retrieved")
        return self.events[-1].item.content[0]

    def sent(self) -> bytes:
        """All the speech of the service so far."""
        return b"".join(one.delta for one in self.events if isinstance(one, events.ResponseOutputAudioDelta))

    def said(self) -> str:
        """The words of the last response that is done."""
        part = self.last("response.done")["response"]["output"][0]["content"][0]
        return part.get("transcript") or part["text"]  # type: ignore[no-any-return]

    def same(self) -> None:
        """Law 2. Over WebRTC only the service knows how much it said aloud."""
        mine, yours = self.client.state.snapshot(), self.session.state.snapshot()
        for part in [part for e in yours["entries"].values() for part in e["parts"].values() if self.client.webrtc]:
            part["audio_bytes"] = 0
        assert mine == yours

    # --- what clients say ---------------------------------------------------------------------------------------------

    def update(self, **changes: Any) -> None:
        self.send(events.SessionUpdate(event_id="u", session=SessionConfig.of(**changes)))

    async def set(self, **changes: Any) -> None:
        """`update`, to its answer."""
        self.update(**changes)
        await self.until("session.updated")

    def send_raw(self, message: Any) -> None:
        """Send a text, or an object as JSON."""
        at_once(self.session.receive(message if isinstance(message, str | bytes) else json.dumps(message)))

    def add(self, **item: Any) -> None:
        """Create an item."""
        self.send(events.ConversationItemCreate(item=Item(**item)))

    def write(self, text: str, **more: Any) -> None:
        self.add(type="message", role="user", content=(ContentPart(type="input_text", text=text),), **more)

    def respond(self, **config: Any) -> None:
        self.send(events.ResponseCreate(event_id="r", response=ResponseConfig(**config)))

    def hear(self, audio: np.ndarray[Any, Any], media_type: str = "audio/pcm", size: int = 4800) -> None:
        """Speak without reading; the client counts audio that the service has turned into an item by then."""
        self.in_step = False
        for piece in chunks(encoded(audio, media_type), size):
            self.send(events.InputAudioBufferAppend(audio=piece))

    async def listen(self, audio: np.ndarray[Any, Any], media_type: str = "audio/pcm", size: int = 4800) -> list[str]:
        """`hear`, but what the service says at once is read after each piece: both states stay in step."""
        n_before = len(self.frames)
        for piece in chunks(encoded(audio, media_type), size):
            self.send(events.InputAudioBufferAppend(audio=piece))
            await self.catch_up()
        return self.types[n_before:]

    async def begin(self, text: str = "Count to ten") -> None:
        """Ask, and read on to the first sound of the reply."""
        self.write(text)
        self.respond()
        await self.until("response.output_audio.delta")

    async def ask(self, text: str, **config: Any) -> dict[str, Any]:
        """A whole written turn; the response as `response.done` shows it."""
        self.write(text)
        self.respond(**config)
        await self.until("response.done")
        return self.last("response.done")["response"]  # type: ignore[no-any-return]

    async def answer(self, text: str, **config: Any) -> str:
        """The words of `ask`."""
        await self.ask(text, **config)
        return self.said()


def collapse(types: list[str]) -> list[str]:
    """A list of types with runs of deltas shown once each, in the order of their first."""
    out: list[str] = []
    deltas: list[str] = []
    for kind in types:
        if kind.endswith(".delta"):
            if kind not in deltas:
                deltas.append(kind)
                out.append(kind)
        else:
            deltas = []
            out.append(kind)
    return out


WRITTEN: dict[str, Any] = {"output_modalities": ("text",)}
VAD_ONLY = ServerVad(create_response=False, interrupt_response=False)
