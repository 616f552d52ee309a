"""Binary frames of the channel between page and kernel, and the kernel's clock.

A frame is: uint32 little-endian length of the header, the header (JSON, padded with spaces), then the buffers. Header
and buffers are padded to multiples of 8 bytes, so that the page can lay a typed array over a buffer without copying.
The header has ``c`` (stream name; "" for messages of the channel itself), ``k`` (kind), ``h`` (header of the message)
and ``b`` (lengths of the buffers), and ``r`` (id of a request) where the sender waits for a reply.

>>> unpack(pack("chat", "text", {"text": "hello"}, [b"12345"]))
Frame(stream='chat', kind='text', header={'text': 'hello'}, buffers=[b'12345'], request=None)
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

MAX_FRAME_BYTES: Final = 8 * 2**20
"""The largest frame, either way (chosen: 60 s of PCM16 at 24 kHz are 2.9 MB)."""


def now_ms() -> float:
    """Return the kernel's clock: ``time.monotonic()`` in ms. The page's `now` estimates the same clock."""
    return time.monotonic() * 1000


class Frame(NamedTuple):
    """Unpacked frame."""

    stream: str
    kind: str
    header: dict[str, Any]
    buffers: list[bytes]
    request: int | None
    """Id of a request, where the sender waits for a reply."""


def pack(stream: str, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), **more: Any) -> bytes:
    """Return the bytes of a frame.

    Parameters
    ----------
    stream, kind : str
        Name of the stream and kind of the message.
    header : dict
        JSON values.
    buffers : sequence of bytes-like, optional
        Binary data.
    **more
        ``r`` of the frame's header.

    Raises
    ------
    TypeError, ValueError
        The header is not JSON, or the frame is larger than `MAX_FRAME_BYTES`.
    """
    parts = [memoryview(buffer).cast("B") for buffer in buffers]
    fields = {"c": stream, "k": kind, "h": header, "b": [len(part) for part in parts], **more}
    head = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode("ascii")
    head += b" " * (-(4 + len(head)) % 8)
    padded = (piece for part in parts for piece in (part, bytes(-len(part) % 8)))
    frame = b"".join((struct.pack("<I", len(head)), head, *padded))
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(f"the frame has {len(frame)} bytes; allowed are {MAX_FRAME_BYTES}: send it in pieces")
    return frame


def unpack(data: Any) -> Frame:
    """Return the frame of some bytes.

    Raises
    ------
    ValueError
        The bytes are not a frame.
    """
    try:
        (length,) = struct.unpack_from("<I", data)
        head = json.loads(bytes(data[4 : 4 + length]))
        buffers, at = [], 4 + length
        for size in head["b"]:
            buffers.append(bytes(data[at : at + size]))
            at += size + -size % 8
        if at != len(data) or not isinstance(head["h"], dict):
            raise ValueError("wrong lengths or a wrong header")
        return Frame(str(head["c"]), str(head["k"]), head["h"], buffers, head.get("r"))
    except (struct.error, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a frame of the channel ({len(data)} bytes): {error}") from error
