"""Generations of the model: `Response`, and its streamed pieces, `Delta`."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final, Literal

import numpy as np

from rtnb._loop import on_own_loop
from rtnb.audio import Audio, codec, resample
from rtnb.client.log import short
from rtnb.client.pending import service_error
from rtnb.errors import AudioError, ConnectionClosed, ResponseFailed, RtnbError, ServiceError
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
"""Metadata key that carries the `event_id` of the request: the service echoes it in `response.created`."""

DeltaKind = Literal["audio", "transcript", "text", "arguments"]

_CARRIERS: Final[dict[str, DeltaKind]] = {
    "output_audio": "audio",
    "output_text": "text",
    "output_audio_transcript": "transcript",
    "function_call_arguments": "arguments",
}
KINDS: Final = {f"response.{name}.{end}": kind for name, kind in _CARRIERS.items() for end in ("delta", "done")}
"""Wire type -> kind of the piece; a `done` event has the whole text in the field of that name."""


@dataclass(slots=True, repr=False, eq=False)
class Delta:
    """A streamed piece of a response."""

    kind: DeltaKind
    arrived_ms: float
    """Arrival, in ms after the request of the response."""
    _event: Any
    format: AudioFormat
    """Format of its audio."""

    @property
    def size_bytes(self) -> int:
        """Bytes of encoded audio; 0 for text."""
        return int(self._event.audio_bytes) if self.kind == "audio" else 0

    @property
    def item_id(self) -> str:
        """Id of the item that this piece belongs to."""
        return str(self._event.item_id)

    @property
    def content_index(self) -> int:
        """Index of the item's content part."""
        return getattr(self._event, "content_index", 0) or 0

    @property
    def text(self) -> str:
        """Transcript or text; empty for audio."""
        return "" if self.kind == "audio" else str(self._event.delta)

    @property
    def pcm(self) -> bytes:
        """Audio as received, encoded in `format`; empty for text."""
        return bytes(self._event.delta) if self.kind == "audio" else b""

    @property
    def rate_hz(self) -> int:
        """Samples per second of `audio` and `samples`: 24 000, or 8 000 for G.711."""
        return self.format.rate_hz

    @property
    def samples(self) -> int:
        """Number of samples at `rate_hz`; 0 for text."""
        return self.size_bytes // (2 if self.format.type == "audio/pcm" else 1)

    @property
    def audio_ms(self) -> float:
        """Duration of the audio, in ms; 0 for text."""
        return 1000 * self.samples / self.rate_hz

    @property
    def audio(self) -> Audio:
        """Samples: float32, shape (samples,), full scale ±1, at `rate_hz`."""
        return _decode(self.pcm, self.format)

    def __repr__(self) -> str:
        inside = f"{self.audio_ms:.0f} ms" if self.kind == "audio" else repr(short(self.text))
        return f"<Delta {self.kind} at {self.arrived_ms:.0f} ms: {inside}>"


def _decode(pcm: bytes, form: AudioFormat) -> Audio:
    if form.type == "audio/pcm":
        pcm = pcm[: len(pcm) // 2 * 2]  # a service may cut a sample in two: the halves meet when deltas are joined
    return codec(form.type).decode(pcm)


class Response:
    """A generation of the model.

    ``await response`` waits until it is done and returns it. It raises `ResponseFailed` or `RateLimited` where the
    service failed, `ConnectionClosed` where the connection ended first, and `RequestTimeout` after 60 s without an
    event of this response. Cancelled and incomplete responses do not raise: see `status`. ``async for delta in
    response`` yields every `Delta` from the first on, as they arrive. Both work from any event loop and thread.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast") as session:
    ...         response = await session.ask("Count to five!")
    ...         return response.status, response.transcript, len(response.audio) > 24_000
    >>> asyncio.run(talk())
    ('completed', 'One, two, three, four, five.', True)
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
        """Monotonic time of the request: when `response.create` was sent. Where turn detection began the response: when
        the user's turn was committed, or else when the service announced the response."""
        self.config = config
        """The requested settings; None where turn detection began it."""
        self.done_ms: float | None = None
        """When it was done, in ms after the request; None while it grows."""
        self.tool_round = 0
        """Number of tool rounds that led to it."""
        self._loop = asyncio.get_running_loop()
        self.last_event_s = self._loop.time()
        """Time of its newest event on the loop's clock: its deadline counts from there."""
        self.timeout_s: float | None = None
        """Longest time without an event; None is the session's."""
        self.watcher: asyncio.TimerHandle | None = None
        """The timer of its deadline."""
        self.over_budget = False
        """Whether it is being cancelled because the budget is used up."""
        self.follow_up: asyncio.Task[Response | None] | None = None
        """The task that runs its function calls and returns the response that follows; None without calls."""
        self.lease: object = None
        """Keeps the session open while the response is in progress."""
        self.value = value
        """Newest description by the service."""
        self._dialect = dialect
        self.bytes_per_ms = format.bytes_per_ms
        """Bytes of encoded audio per millisecond."""
        self._pieces: list[Any] = []
        self._arrivals_ms = array("d")
        self._texts: dict[tuple[str, str, int], list[str]] = {}
        self._items: dict[str, Item] = {}
        self._complete: set[str] = set()
        self._failure: RtnbError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._enders: list[asyncio.Future[None]] = []
        self._audio: tuple[int, Audio] | None = None

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """``in_progress``, ``completed``, ``cancelled``, ``incomplete`` or ``failed``."""
        return self.value.status or "in_progress"

    @property
    def status_details(self) -> StatusDetails | None:
        """Reason for a status other than ``completed``, e.g. ``reason="turn_detected"``."""
        return self.value.status_details or None

    @property
    def usage(self) -> Usage | None:
        """Tokens, once it is done; None where the service reports none."""
        return self.value.usage or None

    @property
    def metadata(self) -> JsonObject:
        """The metadata of the request."""
        return {key: value for key, value in (self.value.metadata or {}).items() if key != TAG}

    @property
    def in_conversation(self) -> bool:
        """False for a response outside the conversation (``conversation="none"``)."""
        return self.value.conversation_id is not None

    @property
    def done(self) -> bool:
        """True once it has ended: no event of it follows."""
        return self.done_ms is not None

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """All pieces so far, in order of arrival."""
        return tuple(map(self._delta_at, range(len(self._pieces))))

    def _delta_at(self, position: int) -> Delta:
        event = self._pieces[position]
        return Delta(KINDS[event.type], self._arrivals_ms[position], event, self.format)

    @property
    def items(self) -> tuple[Item, ...]:
        """The items it produced; the final version of each once the item is complete."""
        return tuple(self._items.values())

    @property
    def function_calls(self) -> tuple[Item, ...]:
        """The completed function calls. Do not run the calls of a response that did not complete."""
        complete = (item for item_id, item in tuple(self._items.items()) if item_id in self._complete)
        return tuple(i for i in complete if i.type == "function_call" and i.status in (UNSET, "completed"))

    @property
    def transcript(self) -> str:
        """Transcript of its speech."""
        return self._joined("transcript")

    @property
    def text(self) -> str:
        """Text output; for speech see `transcript`."""
        return self._joined("text")

    def _joined(self, kind: str) -> str:
        return "\n".join("".join(pieces) for key, pieces in tuple(self._texts.items()) if key[0] == kind)

    @property
    def audio(self) -> Audio:
        """All speech so far: float32, shape (n_samples,), full scale ±1, at 24 000 Hz in every wire format."""
        pieces = [delta for delta in self.deltas if delta.kind == "audio"]
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
        """Duration of the speech that arrived so far, in ms."""
        return sum(delta.audio_ms for delta in self.deltas)

    @property
    def time_to_first_audio_ms(self) -> float | None:
        """Time from the request to the first audio; None without audio."""
        return next((delta.arrived_ms for delta in self.deltas if delta.kind == "audio"), None)

    def play(self) -> Any:
        """Return an audio player for the notebook. The cell's output stores the audio: clear it before saving.

        Raises
        ------
        AudioError
            The response has no audio.
        """
        audio = self.audio
        if not len(audio):
            raise AudioError(f"response {self.id} has no audio ({self.status})")
        from IPython.display import Audio as Player

        return Player(audio, rate=RATE_HZ, normalize=False)  # type: ignore[no-untyped-call]

    # --- waiting ------------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Response]:
        return self._finished().__await__()

    @on_own_loop
    async def _finished(self) -> Response:
        await self.wait_done()
        self._raise_for_status()
        return self

    async def wait_done(self) -> None:
        """Wait for the end, however it ends; on the session's loop."""
        if self.done_ms is None:
            await self._join(self._enders)  # not woken by each delta

    @on_own_loop
    async def _delta(self, position: int) -> Delta | None:
        """Return the piece at a position, None after the last."""
        while position >= len(self._pieces):
            if self.done_ms is not None:
                self._raise_for_status()
                return None
            await self._join(self._waiters)
        return self._delta_at(position)

    async def _join(self, waiters: list[asyncio.Future[None]]) -> None:
        waiters.append(self._loop.create_future())
        await waiters[-1]

    def _raise_for_status(self) -> None:
        if self._failure is not None:
            raise self._failure.again()
        if self.status == "failed":
            raise self.error or ResponseFailed(f"response {self.id} failed without a reason")

    @property
    def error(self) -> ServiceError | None:
        """Reason of the failure; None unless `status` is ``failed``."""
        if self.status != "failed":
            return None
        detail = (self.status_details and self.status_details.error) or ErrorDetail()
        return service_error(detail, dialect=self._dialect, kind=ResponseFailed)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        position = 0
        while (delta := await self._delta(position)) is not None:
            yield delta
            position += 1

    # --- fed by the dispatcher ----------------------------------------------------------------------------------------

    def add(self, event: Any, arrived_s: float) -> None:
        """Append a piece. Its `Delta` is made when it is asked for: most audio never is."""
        self._arrivals_ms.append(1000 * (arrived_s - self.requested_s))
        self._pieces.append(event)  # last: another thread may read meanwhile
        if KINDS[event.type] != "audio":
            self._texts.setdefault(_place(event), []).append(event.delta)
        if self._waiters:
            _wake(self._waiters)

    def replace_text(self, event: Any) -> None:
        """Take the whole text of a `done` event: it is right even where deltas were lost."""
        self._texts[_place(event)] = [getattr(event, KINDS[event.type])]

    def add_item(self, item: Item, *, complete: bool) -> None:
        """Take an item that was announced or is complete."""
        item_id = item.id or ""
        if complete or item_id not in self._complete:
            self._items[item_id] = item
        if complete:
            self._complete.add(item_id)

    def finish(self, value: ResponseValue, at_s: float, failure: RtnbError | None = None) -> None:
        """Settle the response: with what `response.done` carries, or with the error that ended it first."""
        if failure is not None:
            reason = "connection_closed" if isinstance(failure, ConnectionClosed) else "timeout"
            details = StatusDetails(type="incomplete", reason=reason)
            value = replace(self.value, status="incomplete", status_details=details)
        self.value, self._failure = value, failure
        for item in value.output or ():  # whose events may have been lost
            self.add_item(item, complete=True)
            for index, part in enumerate(item.content or ()):
                for kind, text in (("transcript", part.transcript), ("text", part.text)):
                    if text and part.type.startswith(("output_", "audio", "text")):
                        self._texts.setdefault((kind, item.id or "", index), [text])
        self.done_ms = 1000 * (at_s - self.requested_s)
        _wake(self._waiters)
        _wake(self._enders)

    # --- display ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        text = short(self.transcript or self.text)
        return f"<Response {self.id} {self.status}, {self.audio_ms / 1000:.2f} s of audio: {text!r}>"

    def _repr_html_(self) -> str:
        first_ms = self.time_to_first_audio_ms
        first = "" if first_ms is None else f", first audio after {first_ms:.0f} ms"
        calls = "".join(f"<br><code>{escape(f'{call.name}({call.arguments})')}</code>" for call in self.function_calls)
        return (
            f"<p><b>{escape(self.status)}</b>, {self.audio_ms / 1000:.2f} s of audio{first}<br>"
            f"{escape(self.transcript or self.text)}{calls}</p>"
        )


def _place(event: Any) -> tuple[str, str, int]:
    """Return the kind, item and content part of a piece of text."""
    return KINDS[event.type], event.item_id, getattr(event, "content_index", 0) or 0


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
