"""What a session keeps of the sound of its items: for `conversation.item.retrieve`, and for what it understood."""

from __future__ import annotations

from dataclasses import replace

from rtnb.audio import codec
from rtnb.protocol import ContentPart, ErrorDetail, Item, Usage, events
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig
from rtnb.simulator.recognise import KnownSpeech


class Recordings:
    """Encoded audio by item, and the words of the user's items where they are known.

    Parameters
    ----------
    known : KnownSpeech
        What all sessions can write down.
    """

    def __init__(self, known: KnownSpeech) -> None:
        self._known = known
        self._audio: dict[str, bytearray] = {}
        self._media_types: dict[str, str] = {}
        self._words: dict[str, str | None] = {}

    def add(self, item_id: str, data: bytes, *, media_type: str) -> None:
        """Append to an item's audio."""
        self._audio.setdefault(item_id, bytearray()).extend(data)
        self._media_types[item_id] = media_type

    def tell(self, item_id: str, words: str) -> None:
        """A scenario says what an item means."""
        self._words[item_id] = words

    def follow(self, event: events.Event) -> None:
        """Truncate and delete as the client asked."""
        if isinstance(event, events.ConversationItemTruncate) and event.item_id in self._audio:
            per_ms = codec(self._media_types[event.item_id]).bytes_per_ms
            del self._audio[event.item_id][event.audio_end_ms * per_ms :]
        elif isinstance(event, events.ConversationItemDelete):
            for kept in (self._audio, self._media_types, self._words):
                kept.pop(event.item_id, None)

    def duration_ms(self, item_id: str) -> float:
        """Length of an item's audio, 0 where none is kept."""
        held = self._audio.get(item_id)
        return len(held) / codec(self._media_types[item_id]).bytes_per_ms if held else 0.0

    def words(self, item_id: str) -> str | None:
        """What an item says: as a scenario tells, or as known speech; None where nobody knows."""
        if item_id not in self._words:
            wire = codec(self._media_types.get(item_id, "audio/pcm"))
            heard = wire.decode(bytes(self._audio.get(item_id, b"")))
            self._words[item_id] = self._known.transcribe(heard, rate_hz=wire.rate_hz)
        return self._words[item_id]

    def transcription(self, item_id: str) -> events.Event:
        """What the service says about the words of an item: exact, or that it does not know."""
        text = self.words(item_id)
        if text is not None:
            seconds = round(self.duration_ms(item_id) / 1000, 3)
            return events.ConversationItemInputAudioTranscriptionCompleted(
                item_id=item_id, content_index=0, transcript=text, usage=Usage(type="duration", seconds=seconds)
            )
        detail = ErrorDetail(
            type="transcription_error",
            code="audio_unintelligible",
            message="The simulator writes down only speech it knows (its own voice, a scenario): nothing is invented.",
            param=None,
        )
        return events.ConversationItemInputAudioTranscriptionFailed(item_id=item_id, content_index=0, error=detail)

    def understood(self, item: Item) -> Item:
        """A user's item as the model hears it: known speech is understood even where no transcription was asked for."""
        if not is_spoken(item) or not item.content or item.content[0].transcript:
            return item
        words = self.words(item.id or "")
        return replace(item, content=(ContentPart(type="input_audio", transcript=words),)) if words else item

    def context(self, config: ResponseConfig, state: State) -> list[Item]:
        """What a response is made from, as it is understood: the conversation, or the `input` it was given."""
        if not isinstance(config.input, tuple):
            return [self.understood(item) for item in state.conversation]
        named = (state.entries[str(i.id)].item if i.type == "item_reference" else i for i in config.input)
        return [self.understood(item) for item in named]

    def with_audio(self, item: Item) -> Item:
        """An item with its audio, as `conversation.item.retrieved` shows it."""
        held = bytes(self._audio.get(item.id or "", b""))
        if not held or not item.content:
            return item
        return replace(item, content=tuple(replace(part, audio=held) for part in item.content))


def is_spoken(item: Item) -> bool:
    """Whether an item is the user's voice."""
    return item.role == "user" and bool(item.content and item.content[0].type == "input_audio")
