"""Who gets which response: creates wait for their turn, and every `response.created` finds its request.

A conversation has one active response at a time. Creates wait until it is done, go out one by one, and are matched in
order. Turn detection may slip its own response in: the service then refuses our create, which waits for the next turn.
Responses outside the conversation run side by side and are told apart by a metadata key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from rtnb.client._link import Link
from rtnb.client._settings import audio_format
from rtnb.client.response import TAG, Response
from rtnb.errors import ServiceError
from rtnb.protocol import events
from rtnb.protocol.state import State
from rtnb.protocol.values import UNSET, ResponseConfig
from rtnb.protocol.values import Response as ResponseValue

BUSY: Final = "conversation_already_has_active_response"

_METADATA_LIMIT = 16  # pairs (the service's limit)
_AUTO_GRACE_S = 3.0  # how long after a committed turn a response counts as the service's own answer to it (chosen)
_UNCLAIMED = 64  # responses of the service kept for next_response() (chosen)


class _Busy(Exception):
    """Another response came first."""


class _Request:
    """One `response.create` on its way to a response."""

    def __init__(self, config: ResponseConfig | None, event_id: str) -> None:
        self.config = config
        self.event_id = event_id
        self.sent_s = 0.0
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()


class ResponseQueue:
    """Live responses, requests for more, and responses the service began by itself."""

    def __init__(self, state: State, *, link: Link) -> None:
        self.live: dict[str, Response] = {}
        """Responses in progress by id."""
        self._state = state
        self._link = link
        self._seen: set[str] = set()
        self._line: deque[object] = deque()
        self._sent: _Request | None = None
        self._outside: dict[str, _Request] = {}
        self._doubtful: Response | None = None
        self._turn_committed_s: float | None = None
        self._unclaimed: deque[Response] = deque(maxlen=_UNCLAIMED)
        self._claimants: deque[asyncio.Future[Response]] = deque()
        self._changed: list[asyncio.Future[None]] = []
        self._end: Exception | None = None

    @property
    def active(self) -> Response | None:
        """The response that is being generated into the conversation."""
        return self.live.get(self._state.active_response_id or "")

    # --- asking -------------------------------------------------------------------------------------------------------

    async def create(self, config: ResponseConfig | None) -> Response:
        """Ask for a response when it is its turn, and return it once the service began it."""
        if config is not None and config.conversation == "none":
            return await self._create_outside(config)
        place = object()
        self._line.append(place)
        try:
            while True:
                await self._turn_of(place)
                request = _Request(config, self._link.new_id())
                self._sent = request
                try:
                    return await self._ask(request)
                except _Busy:
                    continue
        finally:
            self._line.remove(place)
            self._wake()

    async def _ask(self, request: _Request) -> Response:
        """Send a request and wait; once it is sent, giving up on it does not take it back."""
        request.sent_s = self._link.clock()
        config = UNSET if request.config is None else request.config
        try:
            await self._link.send(events.ResponseCreate(event_id=request.event_id, response=config))
        except Exception:  # nothing was sent
            self._sent = None if self._sent is request else self._sent
            self._outside.pop(request.event_id, None)
            raise
        return await request.answer

    async def _create_outside(self, config: ResponseConfig) -> Response:
        event_id = self._link.new_id()
        metadata = dict(config.metadata or {})
        if len(metadata) < _METADATA_LIMIT:
            config = replace(config, metadata={**metadata, TAG: event_id})
        request = self._outside[event_id] = _Request(config, event_id)
        return await self._ask(request)

    async def _turn_of(self, place: object) -> None:
        while self._line[0] is not place or self._sent is not None or self._state.active_response_id is not None:
            await self._change()

    async def _change(self) -> None:
        if self._end is not None:
            raise self._end
        changed = asyncio.get_running_loop().create_future()
        self._changed.append(changed)
        await changed

    def _wake(self) -> None:
        changed, self._changed = self._changed, []
        for one in changed:
            if not one.done():
                one.set_result(None)

    # --- what the service says ----------------------------------------------------------------------------------------

    def turn_committed(self, at_s: float) -> None:
        """Turn detection committed the user's turn and will answer it by itself."""
        if self._state.active_response_id is None:
            self._turn_committed_s = at_s

    def begin(self, value: ResponseValue, arrived_s: float) -> None:
        """`response.created`."""
        if value.id in self._seen:
            return
        self._seen.add(value.id)
        own_turn_s = self._own_turn(value, arrived_s)
        request = self._request_of(value, own_turn_s is not None)
        requested_s = request.sent_s if request else arrived_s if own_turn_s is None else own_turn_s
        response = Response(
            value,
            requested_s=requested_s,
            format=audio_format(self._state.session, value),
            dialect=self._link.connection.dialect,
            config=request.config if request else None,
        )
        self.live[value.id] = response
        if request is not None and not request.answer.done():
            request.answer.set_result(response)
            return
        if own_turn_s is not None and self._sent is not None:
            self._doubtful = response
        self._hand_out(response)

    def _own_turn(self, value: ResponseValue, arrived_s: float) -> float | None:
        """When the turn was committed that this response of the service answers; None for no such turn."""
        if value.conversation_id is None:
            return None
        committed_s, self._turn_committed_s = self._turn_committed_s, None
        return committed_s if committed_s is not None and arrived_s - committed_s < _AUTO_GRACE_S else None

    def _request_of(self, value: ResponseValue, own_turn: bool) -> _Request | None:
        metadata = value.metadata if isinstance(value.metadata, Mapping) else {}
        tagged = self._outside.pop(str(metadata.get(TAG, "")), None)
        if tagged is not None:
            return tagged
        if value.conversation_id is None:  # the service did not echo the tag, or there was no room for it
            oldest = next(iter(self._outside), None)
            return self._outside.pop(oldest) if oldest is not None else None
        request = self._sent
        if request is None:
            return None
        wanted = request.config.metadata if request.config else None
        if own_turn and not (wanted and wanted == metadata):
            return None  # a turn was just committed: this is its answer, and ours is refused or comes later
        self._sent = None
        self._wake()
        return request

    def finish(self, value: ResponseValue, arrived_s: float) -> Response:
        """`response.done`; also of a response whose beginning was missed."""
        if value.id not in self._seen:
            self.begin(value, arrived_s)
        response = self.live.pop(value.id, None)
        if response is None:  # said twice
            return Response(value, requested_s=arrived_s)
        response._finish(value, arrived_s)
        if response is self._doubtful:
            self._adopt(response)
        self._wake()
        return response

    def _adopt(self, response: Response) -> None:
        """It ended and our create was neither refused nor answered: it was ours after all."""
        self._doubtful = None
        request, self._sent = self._sent, None
        if request is not None and not request.answer.done():
            if response in self._unclaimed:
                self._unclaimed.remove(response)
            request.answer.set_result(response)

    def refused(self, event_id: str | None, error: ServiceError) -> bool:
        """An error: fail or repeat the request it belongs to; False where it belongs to none."""
        request = self._outside.pop(event_id or "", None)
        if request is None and self._sent is not None:
            unnamed = event_id is None and error.code == BUSY  # some services do not name the event
            if unnamed or event_id == self._sent.event_id:
                request, self._sent, self._doubtful = self._sent, None, None
        if request is None:
            return False
        if not request.answer.done():
            again = error.code == BUSY and self._state.active_response_id is not None
            request.answer.set_exception(_Busy() if again else error)
            request.answer.exception()  # its caller may have given up
        self._wake()
        return True

    def end(self, error: Any, at_s: float) -> None:
        """The session is over."""
        self._end = error
        requests = [*self._outside.values(), *([self._sent] if self._sent else [])]
        for future in (*(request.answer for request in requests), *self._claimants):
            if not future.done():
                future.set_exception(error)
                future.exception()
        for response in self.live.values():
            response._cut_off(error, at_s)
        self.live.clear()
        self._wake()

    # --- responses the service began ----------------------------------------------------------------------------------

    def _hand_out(self, response: Response) -> None:
        while self._claimants:
            claimant = self._claimants.popleft()
            if not claimant.done():
                claimant.set_result(response)
                return
        self._unclaimed.append(response)

    def skip(self) -> None:
        """Forget the responses nobody asked for so far."""
        self._unclaimed.clear()

    async def next(self) -> Response:
        """The oldest response the service began by itself that nobody was given yet; waits for one."""
        if self._unclaimed:
            return self._unclaimed.popleft()
        if self._end is not None:
            raise self._end
        claimant: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._claimants.append(claimant)
        return await claimant
