"""Replacement of voices and words in a trace: `Redaction`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np

from rtnb.audio import Codec, codec
from rtnb.client.log import Formats, LogRow
from rtnb.errors import TraceError
from rtnb.protocol import wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS
from rtnb.trace.timeline import CARRIERS, Lane

_STRUCTURE = {"type", "object", "status", "role", "model", "voice", "code", "param", "name", "language", "reason"}
_STRUCTURE |= {"effort", "eagerness", "detail", "output_modalities", "include", "tool_choice", "noise_reduction"}
"""Fields that hold names of the protocol. Everything else that is text is content, unknown fields too."""
_TONE_HZ: Final = 440.0
_TONE: Final = 0.05  # amplitude: -26 dB full scale (chosen)


class Redaction:
    """Rows with other audio and other texts; give it every row, in order.

    Parameters
    ----------
    audio : {"silence", "tone"}, optional
        Replacement of all audio, as long as it was; None keeps it.
    text : callable, optional
        str -> str, for every text of a person, the model or the instructions. A text that arrived in pieces is
        replaced where it is complete: its pieces become empty, because a name may lie across two of them.
    """

    def __init__(
        self, audio: Literal["silence", "tone"] | None = None, text: Callable[[str], str] | None = None
    ) -> None:
        if audio not in (None, "silence", "tone"):
            raise TraceError(f"audio is {audio!r}; allowed are 'silence', 'tone' and None")
        self._audio, self._text, self._formats = audio, text, Formats()
        self._played: dict[Lane, int] = {"you": 0, "model": 0}

    def __call__(self, row: LogRow) -> LogRow:
        form = self._formats.of(row.event)
        if form is not None:
            return row if self._audio is None else row._replace(event=self._other_audio(row.event, codec(form.type)))
        if self._text is None:
            return row
        message = self._clean("", wire.parse(wire.encode(row.event)))
        if row.type.endswith(".delta"):
            message["delta"] = ""
        registry = CLIENT_EVENTS if row.direction == "sent" else SERVER_EVENTS
        return row._replace(event=wire.decode(message, registry=registry))

    def _other_audio(self, event: Any, form: Codec) -> Any:
        lane, field = CARRIERS[type(event)]
        n_bytes = len(getattr(event, field))
        time_s = (self._played[lane] + np.arange(n_bytes // form.bytes_per_sample)) / form.rate_hz
        self._played[lane] += len(time_s)
        loudness = _TONE if self._audio == "tone" else 0.0
        other = form.encode((loudness * np.sin(2 * np.pi * _TONE_HZ * time_s)).astype(np.float32))
        return replace(event, **{field: other.ljust(n_bytes, b"\0")})

    def _clean(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._clean(key, entry) for key, entry in value.items()}
        if name in _STRUCTURE or name == "id" or name.endswith("_id"):
            return value
        if isinstance(value, list):
            return [] if name == "logprobs" else [self._clean(name, entry) for entry in value]
        if isinstance(value, str) and self._text is not None and value:
            return "" if name == "image_url" else self._text(value)
        return value
