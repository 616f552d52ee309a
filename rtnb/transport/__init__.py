"""Moving text between us and a service: addresses, sign-in, sockets, and words for every way this fails.

The WebSocket itself is in `rtnb.transport.websocket`, loaded when the first one is opened.
"""

from rtnb.transport.base import Auth, Dialect, Service, Target, TargetFacts, Transport
from rtnb.transport.credentials import ApiKey, BearerToken, Credential, Entra, Headers, NoCredential, Secret, redact
from rtnb.transport.endpoint import Endpoint, is_loopback, read_endpoint
from rtnb.transport.ephemeral import EphemeralKey, ephemeral_body, mint
from rtnb.transport.services import Azure, Custom, OpenAI

__all__ = [
    "ApiKey",
    "Auth",
    "Azure",
    "BearerToken",
    "Credential",
    "Custom",
    "Dialect",
    "Endpoint",
    "Entra",
    "EphemeralKey",
    "Headers",
    "NoCredential",
    "OpenAI",
    "Secret",
    "Service",
    "Target",
    "TargetFacts",
    "Transport",
    "ephemeral_body",
    "is_loopback",
    "mint",
    "read_endpoint",
    "redact",
]
