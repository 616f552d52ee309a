"""Realtime protocol without a clock, a socket or a random number.

>>> from rtnb.protocol import ServerVad
>>> ServerVad(threshold=0.6).threshold
0.6
"""

from rtnb.protocol.connection import Connection
from rtnb.protocol.values import (
    PCM16,
    PCMA,
    PCMU,
    UNSET,
    AudioFormat,
    ContentPart,
    Dialect,
    ErrorDetail,
    Item,
    NoiseReduction,
    Response,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    Unset,
    Usage,
    merge,
)

__all__ = [
    "PCM16", "PCMA", "PCMU", "UNSET", "AudioFormat", "Connection", "ContentPart", "Dialect", "ErrorDetail", "Item",
    "NoiseReduction", "Response", "ResponseConfig", "SemanticVad", "ServerVad", "SessionConfig", "Transcription",
    "Unset", "Usage", "merge",
]  # fmt: skip
