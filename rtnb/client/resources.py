"""Resources of a session: method paths are wire names, so `session.input_audio_buffer.commit()` sends that event.

Each call waits for the service's reply where there is one. It raises `ServiceError` where the service refuses,
`RequestTimeout` at its deadline (15 s; `timeout_s` changes it), and `ConnectionClosed` where the session ended. All
work from any event loop and thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy.typing as npt

from rtnb._loop import on_own_loop
from rtnb.audio import as_audio, codec
from rtnb.client.dispatcher import Dispatcher
from rtnb.client.response import Response
from rtnb.client.settings import ResponseSettings
from rtnb.errors import AudioError
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, Item, ResponseConfig


class _Resource:
    """Base of all resources: the dispatcher of their session, and its loop."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop
        self._lease = dispatcher.responses.lease()


class InputAudioBufferResource(_Resource):
    """`session.input_audio_buffer`: the user's audio on its way to the service."""

    @on_own_loop
    async def append(self, audio: npt.ArrayLike | bytes, *, timeout_s: float | None = None) -> None:
        """Add audio; the service does not acknowledge it.

        Parameters
        ----------
        audio : array_like or bytes
            An array at the rate of the session's input format (24 kHz, or 8 kHz for G.711; `Session.say` resamples),
            or bytes already in that format. At most 15 MiB.
        timeout_s : float, optional
            Deadline for room in the send buffer; default 15 s.

        Raises
        ------
        AudioError
            Not audio, or half a sample: chunks of PCM must have an even number of bytes.
        RequestTimeout
            The service does not read: the connection is congested.
        """
        form = self._dispatcher.config.input_format
        if isinstance(audio, bytes | bytearray | memoryview):
            data = bytes(audio)
            if form.type == "audio/pcm" and len(data) % 2:
                raise AudioError(f"got {len(data)} bytes of 16-bit PCM: the number must be even").with_hint(
                    "Cut chunks between samples, at even positions."
                )
        else:
            data = codec(form.type).encode(as_audio(audio))
        event = events.InputAudioBufferAppend(audio=data, event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.send(event, timeout_s=timeout_s)

    @on_own_loop
    async def commit(self, *, timeout_s: float | None = None) -> str:
        """Turn the buffered audio into a user item, and return the item's id; creates no response.

        Raises
        ------
        ServiceError
            ``input_audio_buffer_commit_empty``: less than 100 ms were buffered, or turn detection was faster.
        """
        event = events.InputAudioBufferCommit(event_id=self._dispatcher.new_id("client"))
        reply = await self._dispatcher.request(event, "input_audio_buffer.committed", timeout_s=timeout_s)
        return str(reply.item_id)

    @on_own_loop
    async def clear(self, *, timeout_s: float | None = None) -> None:
        """Discard the buffered audio."""
        event = events.InputAudioBufferClear(event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.request(event, "input_audio_buffer.cleared", timeout_s=timeout_s)


class OutputAudioBufferResource(_Resource):
    """`session.output_audio_buffer`: WebRTC only, where the service plays the audio."""

    @on_own_loop
    async def clear(self, *, timeout_s: float | None = None) -> None:
        """Stop the audio that the service is playing."""
        event = events.OutputAudioBufferClear(event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.request(event, "output_audio_buffer.cleared", timeout_s=timeout_s)


class ItemResource(_Resource):
    """`session.conversation.item`: the entries of the conversation."""

    @on_own_loop
    async def create(
        self,
        item: Item | Mapping[str, Any] | str,
        *,
        previous_item_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        """Add an item to the conversation and return it as the service keeps it.

        Parameters
        ----------
        item : Item, mapping or str
            A text is a message of the user. An item without an id gets one.
        previous_item_id : str, optional
            Insert after this item, ``"root"`` puts it first; None appends.
        timeout_s : float, optional
            Deadline; default 15 s.
        """
        new, new_id = Item.of(item), self._dispatcher.new_id
        if not new.id:
            new = replace(new, id=new_id("item"))
        event = events.ConversationItemCreate(
            item=new, previous_item_id=previous_item_id or UNSET, event_id=new_id("client")
        )
        reply = await self._dispatcher.request(event, "conversation.item.added", str(new.id), timeout_s=timeout_s)
        return reply.item  # type: ignore[no-any-return]

    @on_own_loop
    async def retrieve(self, item_id: str, *, timeout_s: float | None = None) -> Item:
        """Return an item with its audio."""
        event = events.ConversationItemRetrieve(item_id=item_id, event_id=self._dispatcher.new_id("client"))
        reply = await self._dispatcher.request(event, "conversation.item.retrieved", item_id, timeout_s=timeout_s)
        return reply.item  # type: ignore[no-any-return]

    @on_own_loop
    async def truncate(
        self, item_id: str, *, audio_end_ms: int, content_index: int = 0, timeout_s: float | None = None
    ) -> None:
        """Cut an assistant item to the audio that was played.

        Raises
        ------
        ServiceError
            The item has no audio of the assistant, or less of it.
        """
        new_id = self._dispatcher.new_id("client")
        event = events.ConversationItemTruncate(
            item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms, event_id=new_id
        )
        await self._dispatcher.request(event, "conversation.item.truncated", item_id, timeout_s=timeout_s)

    @on_own_loop
    async def delete(self, item_id: str, *, timeout_s: float | None = None) -> None:
        """Remove an item."""
        event = events.ConversationItemDelete(item_id=item_id, event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.request(event, "conversation.item.deleted", item_id, timeout_s=timeout_s)


class ConversationResource(_Resource):
    """`session.conversation`: its items in order, and `item` to change them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher)
        self.item = ItemResource(dispatcher)

    @property
    def items(self) -> list[Item]:
        """The items as the service keeps them, first to last."""
        return self._dispatcher.connection.state.conversation

    def __repr__(self) -> str:
        return f"<Conversation: {len(self.items)} items>"


class ResponseResource(_Resource):
    """`session.response`: request responses and cancel them."""

    @on_own_loop
    async def create(
        self,
        config: ResponseConfig | None = None,
        *,
        timeout_s: float | None = None,
        **settings: Unpack[ResponseSettings],
    ) -> Response:
        """Request a response and return it once it begins: await it, or iterate its deltas.

        While a response is active this waits for its end first, in the order of the calls. Responses outside the
        conversation (``conversation="none"``) begin at once.

        Parameters
        ----------
        config : ResponseConfig, optional
            Settings as a value.
        timeout_s : float, optional
            Longest time without an event of the response; default 60 s.
        **settings
            Or by name; a missing one is taken from the session.

        Raises
        ------
        ServiceError
            The service refuses.
        BudgetExceeded
            The budget is used up.
        TypeError
            An unknown setting; names the nearest one.
        """
        if config is not None and settings:
            raise TypeError("give a ResponseConfig or settings by name, not both")
        if settings:
            config = ResponseConfig.of(**settings)
        return await self._dispatcher.create_response(config, timeout_s=timeout_s)

    @on_own_loop
    async def cancel(self, *, response_id: str | None = None, timeout_s: float | None = None) -> Response | None:
        """Cancel a response.

        Parameters
        ----------
        response_id : str, optional
            Which one; None cancels the active one.
        timeout_s : float, optional
            Deadline; default 15 s.

        Returns
        -------
        Response or None
            The cancelled response; None where it had ended already (that is no error).
        """
        return await self._dispatcher.cancel(response_id, timeout_s=timeout_s)
