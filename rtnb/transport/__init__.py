"""Ways to move text to and from a service: addresses, credentials, sockets, and explanations of failures.

The WebSocket itself is in `rtnb.transport.websocket`, loaded when the first one is opened.
"""

from rtnb.transport.base import Dialect, Service, Target, TargetFacts, Transport
from rtnb.transport.credentials import Auth, Entra, EphemeralKey, Headers, Secret
from rtnb.transport.endpoint import Endpoint, is_loopback, read_endpoint
from rtnb.transport.services import Azure, Custom, OpenAI

__all__ = [
    "Auth", "Azure", "Custom", "Dialect", "Endpoint", "Entra", "EphemeralKey", "Headers", "OpenAI", "Secret", "Service",
    "Target", "TargetFacts", "Transport", "is_loopback", "read_endpoint",
]  # fmt: skip
