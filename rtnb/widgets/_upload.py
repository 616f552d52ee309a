"""Receiver of files that a page sends in pieces with ``upload`` or ``sendFile`` of ``shared.js``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rtnb.errors import WidgetError

MAX_UPLOAD_BYTES: Final = 128 * 2**20
"""Largest upload (chosen: 46 minutes of PCM16 at 24 kHz)."""


class Upload:
    """Receiver of one upload at a time; a new upload replaces an unfinished one.

    Examples
    --------
    >>> upload = Upload()
    >>> upload.receive({"upload": {"id": "a", "at": 0, "size": 5}}, [b"abc"])
    >>> upload.receive({"upload": {"id": "a", "at": 3, "size": 5}}, [b"de"])
    b'abcde'
    """

    def __init__(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Drop the unfinished upload; its next piece is refused."""
        self._id, self._size = "", 0
        self.data = bytearray()
        """Bytes of the unfinished upload."""

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
            if size > MAX_UPLOAD_BYTES:
                sizes = f"{size / 2**20:.0f} MiB; allowed are {MAX_UPLOAD_BYTES / 2**20:.0f} MiB"
                raise WidgetError(f"The file has {sizes}.").with_hint("Send a shorter recording.")
            self._id, self._size = upload["id"], size
        elif upload["id"] != self._id:
            raise WidgetError("The upload was cancelled, or another one replaced it.").with_hint("Send the file again.")
        if at != len(self.data) or size != self._size or at + len(piece) > size:
            self.cancel()
            raise WidgetError(f"The upload broke after {at} of {size} bytes.").with_hint("Send the file again.")
        self.data += piece
        if len(self.data) < size:
            return None
        whole = bytes(self.data)
        self.cancel()
        return whole
