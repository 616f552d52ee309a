"""A response while it grows: `Response`, and its pieces, `Delta`."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import replace
from html import escape
from typing import Any, Final, Literal

import numpy as np

from rtnb.audio import Audio, codec, resample
from rtnb.client._calls import service_error
from rtnb.errors import AudioError, ConnectionClosed, ResponseFailed, ServiceError
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import (
    PCM16,
    UNSET,
    AudioFormat,
    Dialect,
    ErrorDetail,
    Item,
    JsonObject,
    ResponseConfig,
    StatusDetails,
    Usage,
)
from rtnb.protocol.values import Response as ResponseValue

RATE_HZ: Final = 24_000
"""Rate of `Response.audio`, whatever the format on the wire."""

TAG: Final = "rtnb_id"
"""Metadata key by which responses outside the conversation are told apart."""

DeltaKind = Literal["audio", "transcript", "text", "arguments"]


class Delta:
    """One streamed piece of a response."""

    __slots__ = ("_event", "arrived_ms", "format", "kind", "size_bytes")

    def __init__(self, kind: DeltaKind, arrived_ms: float, event: Any, format: AudioFormat) -> None:
        self.kind = kind
        self.arrived_ms = arrived_ms
        """When it arrived, in ms after the response was asked for."""
        self.format = format
        self.size_bytes: int = event.audio_bytes if kind == "audio" else 0
        """How many bytes of encoded audio it carries; 0 for text."""
        self._event = event

    @property
    def item_id(self) -> str:
        """The item it is a piece of."""
        return str(self._event.item_id)

    @property
    def content_index(self) -> int:
        """The content part of the item it is a piece of."""
        return getattr(self._event, "content_index", 0) or 0

    @property
    def text(self) -> str:
        """What was said or written; empty for audio."""
        return "" if self.kind == "audio" else str(self._event.delta)

    @property
    def pcm(self) -> bytes:
        """Its audio as it came, encoded in `format`; empty for text."""
        return bytes(self._event.delta) if self.kind == "audio" else b""

    @property
    def rate_hz(self) -> int:
        """Samples per second of `audio` and `samples`: 24 000, or 8 000 for G.711."""
        return self.format.rate_hz

    @property
    def samples(self) -> int:
        """How many samples it carries, at `rate_hz`; 0 for text."""
        return self.size_bytes // (2 if self.format.type == "audio/pcm" else 1)

    @property
    def audio_ms(self) -> float:
        """How long its audio is, in ms; 0 for text."""
        return 1000 * self.samples / self.rate_hz

    @property
    def audio(self) -> Audio:
        """Its samples: float32, shape (samples,), full scale ±1, at `rate_hz`."""
        return _decode(self.pcm, self.format)

    def __repr__(self) -> str:
        inside = f"{self.audio_ms:.0f} ms" if self.kind == "audio" else repr(self.text)
        return f"<Delta {self.kind} at {self.arrived_ms:.0f} ms: {inside}>"


def _decode(pcm: bytes, form: AudioFormat) -> Audio:
    if form.type == "audio/pcm":
        pcm = pcm[: len(pcm) // 2 * 2]  # a service may cut a sample in two: the halves meet when deltas are joined
    return codec(form.type).decode(pcm)


class Response:
    """One generation of the service: await it for its end, iterate it for its pieces, read it at any time.

    ``await response`` waits until it is done and returns it; `ResponseFailed` or `RateLimited` where the service
    failed, `ConnectionClosed` where the connection ended first. Cancelled and incomplete responses do not raise: see
    `status`. ``async for delta in response`` gives every `Delta` from the first on, as they arrive.
    """

    def __init__(
        self,
        value: ResponseValue,
        *,
        requested_s: float,
        format: AudioFormat = PCM16,
        dialect: Dialect = "ga",
        config: ResponseConfig | None = None,
    ) -> None:
        self.id = value.id
        self.format = format
        """Audio format on the wire."""
        self.requested_s = requested_s
        """Monotonic time of the request: when `response.create` was sent; for a response the service began by itself
        when it committed the user's turn, or else announced the response."""
        self.config = config
        """The settings asked for; None where the service began by itself."""
        self.done_ms: float | None = None
        """When it was done, in ms after the request; None while it grows."""
        self.tool_round = 0
        """How many rounds of tool calls led to it."""
        self._value = value
        self._dialect = dialect
        self._bytes_per_ms = format.bytes_per_ms
        self._deltas: list[Delta] = []
        self._texts: dict[tuple[str, str, int], list[str]] = {}
        self._items: dict[str, Item] = {}
        self._complete: dict[str, Item] = {}
        self._end: ConnectionClosed | None = None
        self._done = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._audio: tuple[int, Audio] | None = None
        self._follow_up: asyncio.Task[Response | None] | None = None

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """``in_progress``, ``completed``, ``cancelled``, ``incomplete`` or ``failed``."""
        return self._value.status or "in_progress"

    @property
    def status_details(self) -> StatusDetails | None:
        """Why it did not simply complete, e.g. ``reason="turn_detected"``."""
        return self._value.status_details or None

    @property
    def usage(self) -> Usage | None:
        """Tokens, once it is done; None where the service did not say."""
        return self._value.usage or None

    @property
    def metadata(self) -> JsonObject:
        """The metadata it was asked for with."""
        return {key: value for key, value in (self._value.metadata or {}).items() if key != TAG}

    @property
    def in_conversation(self) -> bool:
        """False for a response outside the conversation (``conversation="none"``)."""
        return self._value.conversation_id is not None

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._done.is_set()

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """All pieces so far, in the order of arrival."""
        return tuple(self._deltas)

    @property
    def items(self) -> tuple[Item, ...]:
        """The items it produced: final ones once they are complete."""
        return tuple((self._items | self._complete | self._final).values())

    @property
    def function_calls(self) -> tuple[Item, ...]:
        """The completed function calls; calls of a response that did not complete must not be run."""
        complete = (self._complete | self._final).values()
        return tuple(i for i in complete if i.type == "function_call" and i.status in (UNSET, "completed"))

    @property
    def _final(self) -> dict[str, Item]:
        return {item.id: item for item in self._value.output or () if item.id}

    @property
    def transcript(self) -> str:
        """What it says."""
        return self._joined("transcript")

    @property
    def text(self) -> str:
        """What it writes (text output); for speech see `transcript`."""
        return self._joined("text")

    def _joined(self, kind: str) -> str:
        return "\n".join("".join(pieces) for key, pieces in self._texts.items() if key[0] == kind)

    @property
    def audio(self) -> Audio:
        """All speech so far: float32, shape (n_samples,), full scale ±1, at 24 000 Hz whatever the format was."""
        pieces = [delta for delta in self._deltas if delta.kind == "audio"]
        if self._audio is None or self._audio[0] != len(pieces):
            self._audio = (len(pieces), self._decoded(pieces))
        return self._audio[1]

    def _decoded(self, pieces: Sequence[Delta]) -> Audio:
        streams: dict[tuple[str, int], list[bytes]] = {}
        for delta in pieces:
            streams.setdefault((delta.item_id, delta.content_index), []).append(delta.pcm)
        decoded = [_decode(b"".join(chunks), self.format) for chunks in streams.values()]
        audio = np.concatenate(decoded) if decoded else np.zeros(0, np.float32)
        if self.format.rate_hz != RATE_HZ and len(audio):
            audio = resample(audio, from_rate_hz=self.format.rate_hz, to_rate_hz=RATE_HZ)
        return audio

    @property
    def audio_ms(self) -> float:
        """How much speech arrived so far, in ms."""
        return sum(delta.audio_ms for delta in self._deltas)

    @property
    def time_to_first_audio_ms(self) -> float | None:
        """From the request to the first audio; None where there is none."""
        return next((delta.arrived_ms for delta in self._deltas if delta.kind == "audio"), None)

    def play(self) -> Any:
        """Return an audio player for the notebook. Its sound is stored with the cell's output: clear it before saving.

        Raises
        ------
        AudioError
            There is no audio.
        """
        audio = self.audio
        if not len(audio):
            raise AudioError(f"response {self.id} has no audio ({self.status})")
        from IPython.display import Audio as Player

        return Player(audio, rate=RATE_HZ, normalize=False)  # type: ignore[no-untyped-call]

    # --- waiting for it -----------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Response]:
        return self._finished().__await__()

    async def _finished(self) -> Response:
        await self._done.wait()
        self._raise_for_status()
        return self

    def _raise_for_status(self) -> None:
        if self._end is not None:
            raise self._end
        if self.status == "failed":
            raise self.error or ResponseFailed(f"response {self.id} failed without a reason")

    @property
    def error(self) -> ServiceError | None:
        """Why it failed; None unless `status` is ``failed``."""
        if self.status != "failed":
            return None
        detail = (self.status_details and self.status_details.error) or ErrorDetail()
        return service_error(detail, dialect=self._dialect, kind=ResponseFailed)

    def __aiter__(self) -> DeltaStream:
        return DeltaStream(self)

    # --- fed by the session -------------------------------------------------------------------------------------------

    def _add(self, kind: DeltaKind, event: Any, arrived_s: float) -> Delta:
        delta = Delta(kind, 1000 * (arrived_s - self.requested_s), event, self.format)
        self._deltas.append(delta)
        if kind != "audio":
            self._texts.setdefault((kind, delta.item_id, delta.content_index), []).append(delta.text)
        if self._waiters:
            self._wake()
        return delta

    def _whole(self, kind: str, event: Any, text: str) -> None:
        """A `done` event says the whole text: it counts, even where deltas were missed."""
        self._texts[kind, event.item_id, getattr(event, "content_index", 0) or 0] = [text]

    def _item(self, item: Item, items: dict[str, Item]) -> None:
        items[item.id or ""] = item

    def _finish(self, value: ResponseValue, arrived_s: float) -> None:
        self._value = value
        self._settle(arrived_s)

    def _cut_off(self, error: ConnectionClosed, at_s: float) -> None:
        """The connection ended first: what had arrived stays."""
        details = StatusDetails(type="incomplete", reason="connection_closed")
        self._value = replace(self._value, status="incomplete", status_details=details)
        self._end = error
        self._settle(at_s)

    def _settle(self, at_s: float) -> None:
        self.done_ms = 1000 * (at_s - self.requested_s)
        self._done.set()
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- looks --------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        said = self.transcript or self.text
        said = said if len(said) <= 60 else said[:59] + "…"
        return f"<Response {self.id} {self.status}, {self.audio_ms / 1000:.2f} s of audio: {said!r}>"

    def _repr_html_(self) -> str:
        first_ms = self.time_to_first_audio_ms
        first = "" if first_ms is None else f", first audio after {first_ms:.0f} ms"
        calls = "".join(f"<br><code>{escape(f'{call.name}({call.arguments})')}</code>" for call in self.function_calls)
        return (
            f"<p><b>{escape(self.status)}</b>, {self.audio_ms / 1000:.2f} s of audio{first}<br>"
            f"{escape(self.transcript or self.text)}{calls}</p>"
        )


class DeltaStream:
    """The deltas of a response from the first on, one by one, as they arrive."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._position = 0

    def __aiter__(self) -> DeltaStream:
        return self

    async def __anext__(self) -> Delta:
        response = self._response
        while self._position >= len(response._deltas):
            if response.done:
                response._raise_for_status()
                raise StopAsyncIteration
            waiter = asyncio.get_running_loop().create_future()
            response._waiters.append(waiter)
            await waiter
        self._position += 1
        return response._deltas[self._position - 1]


def feeders() -> dict[type[Event], Any]:
    """Which event does what to the response it names: event class -> function(response, event, arrived_s).

    Audio is not among them: it is also played.
    """
    return {
        events.ResponseOutputAudioTranscriptDelta: lambda r, e, t: r._add("transcript", e, t),
        events.ResponseOutputTextDelta: lambda r, e, t: r._add("text", e, t),
        events.ResponseFunctionCallArgumentsDelta: lambda r, e, t: r._add("arguments", e, t),
        events.ResponseOutputAudioTranscriptDone: lambda r, e, t: r._whole("transcript", e, e.transcript),
        events.ResponseOutputTextDone: lambda r, e, t: r._whole("text", e, e.text),
        events.ResponseFunctionCallArgumentsDone: lambda r, e, t: r._whole("arguments", e, e.arguments),
        events.ResponseOutputItemAdded: lambda r, e, t: r._item(e.item, r._items),
        events.ResponseOutputItemDone: lambda r, e, t: r._item(e.item, r._complete),
    }
