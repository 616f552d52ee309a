"""What a client says: one frozen dataclass per wire event (GA names)."""

from __future__ import annotations

from rtnb.protocol._event import Event, client_event
from rtnb.protocol.base import UNSET, Unset
from rtnb.protocol.values import Item, ResponseConfig, SessionConfig


@client_event("session.update")
class SessionUpdate(Event):
    """Change settings; answered by `session.updated`, or by `error`, and then nothing at all has changed."""

    session: SessionConfig


@client_event("input_audio_buffer.append")
class InputAudioBufferAppend(Event):
    """Add audio in the session's input format; no answer. At most 15 MiB."""

    audio: bytes


@client_event("input_audio_buffer.commit")
class InputAudioBufferCommit(Event):
    """Make the buffered audio (at least 100 ms) a user item; does not create a response."""


@client_event("input_audio_buffer.clear")
class InputAudioBufferClear(Event):
    """Forget the buffered audio."""


@client_event("conversation.item.create")
class ConversationItemCreate(Event):
    """Put an item into the conversation."""

    item: Item
    previous_item_id: str | Unset | None = UNSET
    """Insert after this item; ``"root"`` puts it first; absent appends."""


@client_event("conversation.item.retrieve")
class ConversationItemRetrieve(Event):
    """Ask for an item with its audio."""

    item_id: str


@client_event("conversation.item.truncate")
class ConversationItemTruncate(Event):
    """Cut an assistant item to what was heard, so that the model does not remember unheard words."""

    item_id: str
    content_index: int
    audio_end_ms: int


@client_event("conversation.item.delete")
class ConversationItemDelete(Event):
    """Remove an item."""

    item_id: str


@client_event("response.create")
class ResponseCreate(Event):
    """Ask for a response."""

    response: ResponseConfig | Unset = UNSET


@client_event("response.cancel")
class ResponseCancel(Event):
    """Stop the running response; answered by `response.done` with status ``cancelled``."""

    response_id: str | Unset = UNSET


@client_event("output_audio_buffer.clear")
class OutputAudioBufferClear(Event):
    """WebRTC and SIP only: stop the audio the service is playing out."""
