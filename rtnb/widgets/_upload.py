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
        self._limit_bytes = limit_bytes
        self._on_progress = on_progress
        self._id = ""
        self._pieces: list[bytes] = []
        self._size = 0
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
        piece = header["upload"]
        if piece.get("cancel"):
            if piece["id"] == self._id:
                self.cancel()
            return None
        if piece["at"] == 0:
            self._begin(str(piece["id"]), int(piece["size"]))
        data = buffers[0]
        if piece["id"] != self._id:
            raise WidgetError("The upload was cancelled, or another one replaced it.").with_hint("Send the file again.")
        if (piece["at"], piece["size"]) != (self.received_bytes, self._size) or len(data) > self._size - piece["at"]:
            received, size = self.received_bytes, self._size
            self.cancel()
            raise WidgetError(f"The upload broke after {received} of {size} bytes.").with_hint("Send the file again.")
        self._pieces.append(data)
        self.received_bytes += len(data)
        if self._on_progress is not None:
            self._on_progress(self.received_bytes, self._size)
        if self.received_bytes < self._size:
            return None
        whole = b"".join(self._pieces)
        self.cancel()
        return whole

    def cancel(self) -> None:
        """Drop the unfinished upload; its next piece is refused."""
        self._id, self._pieces, self._size, self.received_bytes = "", [], 0, 0

    def _begin(self, upload_id: str, size: int) -> None:
        self.cancel()
        if size > self._limit_bytes:
            largest = self._limit_bytes / 2**20
            raise WidgetError(f"The file has {size / 2**20:.0f} MiB; allowed are {largest:.0f} MiB.").with_hint(
                "Send a shorter recording."
            )
        self._id, self._size = upload_id, size
