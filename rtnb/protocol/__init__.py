"""What is said: the realtime protocol without a clock, a socket or a random number."""

from rtnb.protocol.base import UNSET, Dialect, Unset, merge
from rtnb.protocol.connection import Connection
from rtnb.protocol.migration import Migration, migrate
from rtnb.protocol.values import (
    PCM16,
    PCMA,
    PCMU,
    AudioFormat,
    ContentPart,
    ErrorDetail,
    Item,
    NoiseReduction,
    Response,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    Usage,
)

__all__ = [
    "PCM16",
    "PCMA",
    "PCMU",
    "UNSET",
    "AudioFormat",
    "Connection",
    "ContentPart",
    "Dialect",
    "ErrorDetail",
    "Item",
    "Migration",
    "NoiseReduction",
    "Response",
    "ResponseConfig",
    "SemanticVad",
    "ServerVad",
    "SessionConfig",
    "Transcription",
    "Unset",
    "Usage",
    "merge",
    "migrate",
]
