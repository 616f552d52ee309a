"""Receiver of files that a page sends in pieces with ``upload`` of ``shared.js``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rtnb.errors import WidgetError

MAX_UPLOAD_BYTES: Final = 128 * 2**20
"""Default limit of one upload (chosen: 46 minutes of PCM16 at 24 kHz)."""


class Upload:
    """Receiver of one upload at a time; a new upload replaces an unfinished one.

    Parameters
    ----------
    limit_bytes : int, default 128 MiB
        Larger uploads are refused at their first piece.
    on_progress : callable, optional
        ``on_progress(received_bytes, size_bytes)``, called after each piece.

    Examples
    --------
    >>> upload = Upload()
    >>> upload.receive({"upload": {"id": "a", "at": 0, "size": 5}}, [b"abc"])
    >>> upload.receive({"upload": {"id": "a", "at": 3, "size": 5}}, [b"de"])
    b'abcde'
    """

    def __init__(
        self, *, limit_bytes: int = MAX_UPLOAD_BYTES, on_progress: Callable[[int, int], object] | None = None
    ) -> None:
        self._limit_bytes, self._on_progress = limit_bytes, on_progress
        self.cancel()

    def cancel(self) -> None:
        """Drop the unfinished upload; its next piece is refused."""
        self._id, self._size, self._pieces = "", 0, list[bytes]()
        self.received_bytes = 0
        """Bytes of the unfinished upload; 0 without one."""

    def receive(self, header: dict[str, Any], buffers: Sequence[bytes]) -> bytes | None:
        """Take one piece; return all bytes after the last piece, else None. Call it in the handler of the message.

        Raises
        ------
        WidgetError
            The upload is too large, or this piece is not the next one. Raised in the handler, it ends the upload on
            the page, too.
        """
        upload = header["upload"]
        if upload.get("cancel"):
            if upload["id"] == self._id:
                self.cancel()
            return None
        (piece,), at, size = buffers, upload["at"], upload["size"]
        if at == 0:
            self.cancel()
            if size > self._limit_bytes:
                sizes = f"{size / 2**20:.0f} MiB; allowed are {self._limit_bytes / 2**20:.0f} MiB"
                raise WidgetError(f"The file has {sizes}.").with_hint("Send a shorter recording.")
            self._id, self._size = upload["id"], size
        elif upload["id"] != self._id:
            raise WidgetError("The upload was cancelled, or another one replaced it.").with_hint("Send the file again.")
        received = self.received_bytes + len(piece)
        if at != self.received_bytes or size != self._size or received > size:
            self.cancel()
            raise WidgetError(f"The upload broke after {at} of {size} bytes.").with_hint("Send the file again.")
        self._pieces.append(piece)
        self.received_bytes = received
        if self._on_progress is not None:
            self._on_progress(received, size)
        if received < size:
            return None
        whole = b"".join(self._pieces)
        self.cancel()
        return whole
