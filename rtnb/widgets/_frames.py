"""What travels on the line, without the line: binary frames, and the two boxes that make a lossy way a sure one.

A frame is: uint32 little-endian length of the header, the header (JSON, padded with spaces), then the buffers. Header
and buffers are padded to multiples of 8 bytes, so that a typed array can be laid over a buffer where it is.
The header: ``c`` channel ("" for the line's own words), ``n`` number in its channel (from 1), ``s`` stamp (ms, a clock
of the sender that never jumps), ``k`` kind, ``h`` what the kind says, ``b`` lengths of the buffers; where needed ``m``
(a batch: how many buffers each message of ``h`` has), ``r`` (a request's id), ``d`` (ms after which it is stale).

>>> frame = unpack(prepare("chat", "text", {"text": "hello"}, [b"12345"]).numbered(7))
>>> frame.number, frame.kind, frame.messages()
(7, 'text', [({'text': 'hello'}, [b'12345'])])
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = tuple[dict[str, Any], list[bytes]]

MAX_FRAME_BYTES = 8 * 2**20
"""The largest frame, either way (chosen: 60 s of PCM16 at 24 kHz are 2.9 MB)."""

KEPT_FRAMES = 2048
"""How many frames per channel are kept for sending again (chosen)."""

KEPT_BYTES = 32 * 2**20
"""How many bytes of them (chosen)."""

_WAITING = 512  # frames kept behind a gap; chosen: more than arrive within one round trip


def now_ms() -> float:
    """A clock that never jumps, for stamps."""
    return time.monotonic() * 1000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was read."""

    channel: str
    number: int
    stamp_ms: float
    kind: str
    header: Any
    """A dict; in a batch a list of them."""
    buffers: list[bytes]
    counts: list[int] | None = None
    """In a batch: how many buffers each message has."""
    request: int | None = None
    """Where the sender waits for a reply: the id to reply to."""
    stale_ms: float | None = None
    """How late it may be."""

    def messages(self) -> list[Message]:
        """What it carries: one message, or those of a batch."""
        if self.counts is None:
            return [(self.header, self.buffers)]
        rest = iter(self.buffers)
        return [(header, [next(rest) for _ in range(n)]) for header, n in zip(self.header, self.counts, strict=True)]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame that only lacks its number; made in the caller's thread, so that the caller hears what is wrong."""

    head: str
    payload: bytes
    stamp_ms: float

    def __len__(self) -> int:
        return len(self.head) + len(self.payload)

    def numbered(self, number: int = 0) -> bytes:
        """The frame's bytes; number 0 is for the line's own words."""
        head = f'{{"n":{number},"s":{self.stamp_ms:.1f},{self.head}'
        head += " " * (-(4 + len(head)) % 8)
        return b"".join((struct.pack("<I", len(head)), head.encode("ascii"), self.payload))


def prepare(
    channel: str,
    kind: str,
    header: Any,
    buffers: Sequence[bytes] = (),
    **more: Any,
) -> Prepared:
    """Make a frame.

    Parameters
    ----------
    channel, kind : str
        Where it goes and what it is.
    header : dict or list of dict
        What JSON can say.
    buffers : sequence of bytes-like, optional
        What JSON cannot say well.
    **more
        ``m``, ``r``, ``d`` of the frame's header.

    Raises
    ------
    TypeError, ValueError
        The header is no JSON, or the frame is larger than `MAX_FRAME_BYTES`.
    """
    parts = [memoryview(buffer).cast("B") for buffer in buffers]
    words = {"c": channel, "k": kind, "h": header, "b": [len(part) for part in parts], **more}
    head = json.dumps(words, allow_nan=False, separators=(",", ":"))[1:]
    payload = b"".join(piece for part in parts for piece in (part, bytes(-len(part) % 8)))
    prepared = Prepared(head, payload, now_ms())
    if len(prepared) > MAX_FRAME_BYTES - 64:  # the number, the stamp and the padding are still to come
        raise ValueError(f"a frame of {len(prepared)} bytes; allowed are {MAX_FRAME_BYTES}: send it in pieces")
    return prepared


def unpack(data: bytes | bytearray | memoryview) -> Frame:
    """Read a frame.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        (length,) = struct.unpack_from("<I", data)
        head = json.loads(bytes(data[4 : 4 + length]))
        buffers, at = [], 4 + length
        for size in head["b"]:
            buffers.append(bytes(data[at : at + size]))
            at += size + -size % 8
        batch = "m" in head
        fits = not batch or (sum(head["m"]) == len(buffers) and len(head["m"]) == len(head["h"]))
        if at != len(data) or not isinstance(head["h"], list if batch else dict) or not fits:
            raise ValueError("lengths or header are wrong")
        return Frame(
            str(head["c"]),
            int(head["n"]),
            float(head["s"]),
            str(head["k"]),
            head["h"],
            buffers,
            head.get("m"),
            head.get("r"),
            head.get("d"),
        )
    except (struct.error, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no frame of the line ({len(data)} bytes): {error}") from error


class Outbox:
    """Numbered frames of one channel, kept until they are known to have arrived or too much is kept."""

    def __init__(self) -> None:
        self.next = 1
        """The number of the next frame."""
        self._frames: dict[int, bytes] = {}
        self._bytes = 0

    @property
    def first(self) -> int:
        """The oldest number still kept; `next` if there is none."""
        return next(iter(self._frames), self.next)

    def __getitem__(self, number: int) -> bytes:
        return self._frames[number]

    def add(self, prepared: Prepared) -> None:
        """Give it the next number and keep it; the oldest go where it becomes too much."""
        frame = prepared.numbered(self.next)
        self._frames[self.next] = frame
        self._bytes += len(frame)
        self.next += 1
        while len(self._frames) > KEPT_FRAMES or self._bytes > KEPT_BYTES:
            self.forget(self.first)

    def forget(self, number: int) -> None:
        """Drop all up to and including `number`."""
        while self._frames and self.first <= number:
            self._bytes -= len(self._frames.pop(self.first))


@dataclass
class Counts:
    """What went wrong on the way, and what was done about it."""

    late: int = 0
    """Frames dropped because they came too late to be of use."""
    lost: int = 0
    """Frames that can no longer come."""
    resent: int = 0
    """Frames that were missing for a while and came after all."""


class Inbox:
    """Puts the frames of one channel back into order, once each, and knows what is missing."""

    def __init__(self, counts: Counts, expected: int = 1) -> None:
        self.expected = expected
        """The number that comes next."""
        self.counts = counts
        self._known = 0  # the highest number that was seen or asked for
        self._waiting: dict[int, Frame] = {}

    def take(self, frame: Frame) -> list[Frame]:
        """Accept a frame; return all that are now in order."""
        if frame.number < self.expected or frame.number in self._waiting:
            return []
        self.counts.resent += frame.number <= self._known
        self._known = max(self._known, frame.number)
        self._waiting[frame.number] = frame
        if len(self._waiting) > _WAITING:
            return self.skip(min(self._waiting) - 1)
        return self._ready()

    def skip(self, number: int) -> list[Frame]:
        """Give up what is missing up to `number`; return all that are now in order."""
        if number < self.expected:
            return []
        ready = [self._waiting.pop(n) for n in sorted(self._waiting) if n <= number]
        self.counts.lost += number + 1 - self.expected - len(ready)
        self.expected = number + 1
        return ready + self._ready()

    def missing(self, last: int = 0) -> tuple[int, int] | None:
        """First and last number to ask for again, given that the sender has sent up to `last`; None if all is here."""
        end = min(self._waiting) - 1 if self._waiting else last
        if end < self.expected:
            return None
        self._known = max(self._known, end)
        return self.expected, end

    def _ready(self) -> list[Frame]:
        ready = []
        while self.expected in self._waiting:
            ready.append(self._waiting.pop(self.expected))
            self.expected += 1
        return ready


class Delay:
    """How much longer than the quickest frame one took; the two clocks need not agree."""

    def __init__(self) -> None:
        self._quickest: tuple[float, float] | None = None

    def late_ms(self, stamp_ms: float, now: float) -> float:
        """Note a frame that was stamped then and is here now, each by its own clock; return its delay."""
        took = now - stamp_ms
        quickest, at = self._quickest or (took, now)
        quickest = min(took, quickest + (now - at) / 1000)  # forgets 1 ms per second: clocks drift
        self._quickest = (quickest, now)
        return took - quickest
