"""What a person types goes over the wire: `session.input_audio_buffer.commit()` says `input_audio_buffer.commit`.

Each call waits for the service's answer where there is one, and raises `ServiceError` where the service refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from rtnb.audio import as_audio, codec
from rtnb.client._settings import item_of, response_config
from rtnb.client.response import Response
from rtnb.errors import AudioError, ServiceError
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, Item, ResponseConfig

if TYPE_CHECKING:
    import asyncio

    from rtnb.client.session import Session


class InputAudioBufferResource:
    """`session.input_audio_buffer`: the audio the service hears."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def append(self, audio: npt.ArrayLike | bytes) -> None:
        """Add audio; not answered.

        Parameters
        ----------
        audio : array_like or bytes
            An array at the rate of the session's input format (24 kHz, or 8 kHz for G.711; `Session.say` resamples),
            or bytes already in that format. At most 15 MiB.

        Raises
        ------
        AudioError
            Not audio, or half a sample: chunks of PCM must have an even number of bytes.
        """
        form = self._session.config.input_format
        if isinstance(audio, bytes | bytearray | memoryview):
            data = bytes(audio)
            if form.type == "audio/pcm" and len(data) % 2:
                raise AudioError(f"got {len(data)} bytes of 16-bit PCM: the number must be even").with_hint(
                    "Cut chunks between samples, at even positions."
                )
        else:
            data = codec(form.type).encode(as_audio(audio))
        await self._session._link.send(events.InputAudioBufferAppend(audio=data, event_id=self._session._link.new_id()))

    async def commit(self) -> str:
        """Make the buffered audio a user item, and return the item's id; creates no response.

        Raises
        ------
        ServiceError
            ``input_audio_buffer_commit_empty``: less than 100 ms were buffered, or turn detection was faster.
        """
        event = events.InputAudioBufferCommit(event_id=self._session._link.new_id())
        return (await self._session._link.call(event, ("input_audio_buffer.committed",))).item_id  # type: ignore[no-any-return]

    async def clear(self) -> None:
        """Forget the buffered audio."""
        event = events.InputAudioBufferClear(event_id=self._session._link.new_id())
        await self._session._link.call(event, ("input_audio_buffer.cleared",))


class OutputAudioBufferResource:
    """`session.output_audio_buffer`: WebRTC only, where the service plays the audio out."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def clear(self) -> None:
        """Stop the audio the service is playing."""
        event = events.OutputAudioBufferClear(event_id=self._session._link.new_id())
        await self._session._link.call(event, ("output_audio_buffer.cleared",))


class ItemResource:
    """`session.conversation.item`: the entries of the conversation."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, item: Item | Mapping[str, Any] | str, *, previous_item_id: str | None = None) -> Item:
        """Put an item into the conversation and return it as the service has it.

        Parameters
        ----------
        item : Item, mapping or str
            A text is a message of the user. An item without an id gets one.
        previous_item_id : str, optional
            Insert after this item, ``"root"`` puts it first; None appends.
        """
        return (await (await self._begin(item, previous_item_id=previous_item_id))).item  # type: ignore[no-any-return]

    async def _begin(
        self, item: Item | Mapping[str, Any] | str, *, previous_item_id: str | None = None
    ) -> asyncio.Future[Any]:
        """Send it and return the answer to come: a `response.create` may follow at once."""
        item = item_of(item)
        if not item.id:
            item = replace(item, id=self._session._link.new_id("item"))
        event = events.ConversationItemCreate(
            item=item, previous_item_id=previous_item_id or UNSET, event_id=self._session._link.new_id()
        )
        return await self._session._link.begin(event, ("conversation.item.added", item.id or ""))

    async def retrieve(self, item_id: str) -> Item:
        """Return an item with its audio."""
        event = events.ConversationItemRetrieve(item_id=item_id, event_id=self._session._link.new_id())
        return (await self._session._link.call(event, ("conversation.item.retrieved", item_id))).item  # type: ignore[no-any-return]

    async def truncate(self, item_id: str, *, audio_end_ms: int, content_index: int = 0) -> None:
        """Cut an assistant item to what was heard.

        Raises
        ------
        ServiceError
            The item has no audio of the assistant, or less of it.
        """
        event = events.ConversationItemTruncate(
            item_id=item_id,
            content_index=content_index,
            audio_end_ms=audio_end_ms,
            event_id=self._session._link.new_id(),
        )
        await self._session._link.call(event, ("conversation.item.truncated", item_id))

    async def delete(self, item_id: str) -> None:
        """Remove an item."""
        event = events.ConversationItemDelete(item_id=item_id, event_id=self._session._link.new_id())
        await self._session._link.call(event, ("conversation.item.deleted", item_id))


class ConversationResource:
    """`session.conversation`: its items in order, and `item` to change them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.item = ItemResource(session)

    @property
    def items(self) -> list[Item]:
        """The items as the service has them, first to last."""
        return self._session.state.conversation

    def __repr__(self) -> str:
        return f"<Conversation: {len(self.items)} items>"


class ResponseResource:
    """`session.response`: ask for responses and stop them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, config: ResponseConfig | None = None, **settings: Any) -> Response:
        """Ask for a response and return it once it begins: await it, or iterate its deltas.

        While a response is active this waits for its end first, in the order of the calls. Responses outside the
        conversation (``conversation="none"``) begin at once.

        Parameters
        ----------
        config : ResponseConfig, optional
            Settings as a value.
        **settings
            Or by name: `instructions`, `output_modalities`, `voice`, `output_format`, `input`, `tools`,
            `tool_choice`, `max_output_tokens`, `metadata`, `conversation` …; what is absent is the session's.

        Raises
        ------
        ServiceError
            The service refuses.
        TypeError
            An unknown setting.
        """
        if config is not None and settings:
            raise TypeError("give a ResponseConfig or settings by name, not both")
        if settings:
            config = response_config(**settings)
        return await self._session._queue.create(config)

    async def cancel(self, *, response_id: str | None = None) -> Response | None:
        """Stop a response.

        Parameters
        ----------
        response_id : str, optional
            Which one; None stops the active one.

        Returns
        -------
        Response or None
            The cancelled response, None where nothing was active any more (that is no error).
        """
        session = self._session
        active = session._queue.active
        response_id = response_id or (active.id if active else None)
        event = events.ResponseCancel(response_id=response_id or UNSET, event_id=session._link.new_id())
        try:
            response: Response = await session._link.call(event, ("response.cancelled", response_id or ""))
        except ServiceError as error:
            if error.code == "response_cancel_not_active":
                return None
            raise
        return response if response.status == "cancelled" else None
