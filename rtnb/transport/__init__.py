"""Ways to move text to and from a service: addresses, credentials, sockets, and explanations of failures.

The WebSocket itself is in `rtnb.transport.websocket`, loaded when the first one is opened.

>>> from rtnb.transport import read_endpoint
>>> read_endpoint("openai", "https://api.openai.com/v1", dialect="ga", model="gpt-realtime").websocket()
'wss://api.openai.com/v1/realtime?model=gpt-realtime'
"""

from rtnb.transport.base import Dialect, Service, Target, TargetFacts, Transport
from rtnb.transport.credentials import Auth, Entra, EphemeralKey, Headers, Secret
from rtnb.transport.endpoint import Endpoint, is_loopback, read_endpoint
from rtnb.transport.services import Azure, Custom, OpenAI

__all__ = [
    "Auth", "Azure", "Custom", "Dialect", "Endpoint", "Entra", "EphemeralKey", "Headers", "OpenAI", "Secret", "Service",
    "Target", "TargetFacts", "Transport", "is_loopback", "read_endpoint",
]  # fmt: skip
