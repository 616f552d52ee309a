"""Responses of a session, and the decision to whom each belongs: `Responses`.

A response belongs to the `response.create` that requested it, to the `say` that waits for the answer to its turn, or to
`next_response`. The request's `event_id` in the metadata decides, since the service echoes metadata.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtnb.client.pending import PendingRequests, fail
from rtnb.client.response import TAG, Response
from rtnb.errors import RequestTimeout, RtnbError
from rtnb.protocol.values import UNSET, AudioFormat, Dialect, ResponseConfig
from rtnb.protocol.values import Response as ResponseValue

KEPT_RESPONSES: Final = 8
"""Responses that wait for `next_response`; older ones are forgotten. The log's limit does not count their audio, 2 MB
for 30 s (chosen; `python -m tests.benchmarks.memory hour`)."""
KEPT_IDS: Final = 1_000
"""Ids of finished responses and of requests for responses, to recognise duplicates and late events (chosen)."""
TURN_S: Final = 3.0
"""Time after a committed turn in which an unnamed response counts as turn detection's answer to it (chosen)."""


@dataclass(slots=True)
class Create:
    """A `response.create` that may still get its response."""

    config: ResponseConfig | None
    in_conversation: bool
    sent_s: float
    timeout_s: float
    expired: bool = False
    """Whether its deadline passed: a response that names it comes too late, for everybody."""


class Responses:
    """Responses in progress, requests for more, and responses that turn detection began.

    Parameters
    ----------
    pending : PendingRequests
        Who waits for a response.
    clock : callable
        Monotonic time in seconds.
    timeout_s : float
        Longest time without an event of a response, where its request gives none.
    cancel : callable
        ``cancel(response_id)`` cancels a response whose deadline passed: the service may go on with it, and refuse the
        next.
    """

    def __init__(
        self, pending: PendingRequests, *, clock: Callable[[], float], timeout_s: float, cancel: Callable[[str], object]
    ) -> None:
        self.live: dict[str, Response] = {}
        """Responses in progress by id."""
        self.active: Response | None = None
        """The response that is being generated into the conversation."""
        self.creates: dict[str, Create] = {}
        """`event_id` -> request for a response."""
        self.claimed: deque[Response] | None = None
        """Where the responses of turn detection go while a `say` waits for its answer; None without one."""
        self.unanswered_s: float | None = None
        """When a turn was committed that turn detection has yet to answer; None without one."""
        self.lease: Callable[[], object] = lambda: None
        """Returns the reason to stay open, weakly held: session, resources and responses in progress hold it."""
        self.timeout_s, self._cancel = timeout_s, cancel
        self._pending = pending
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._echoes_metadata = False
        self._finished: dict[str, None] = {}
        self._unclaimed: deque[Response] = deque(maxlen=KEPT_RESPONSES)
        self._consumers: deque[asyncio.Future[Response]] = deque()

    def begin(self, value: ResponseValue, at_s: float, form: AudioFormat, dialect: Dialect) -> Response | None:
        """Follow a response from its first event on; None where it has ended already."""
        if value.id in self._finished:
            return None
        committed_s = None
        if value.conversation_id is not None:
            committed_s, self.unanswered_s = self.unanswered_s, None
        own_turn = committed_s is not None and at_s - committed_s < TURN_S
        requested_s = committed_s if own_turn and committed_s is not None else at_s
        response = self.live[value.id] = Response(value, requested_s=requested_s, format=form, dialect=dialect)
        response.lease = self.lease()
        if response.in_conversation:
            self.active = response
        self._decide_owner(response, value, own_turn=own_turn)
        self._watch(response)
        return response

    def _decide_owner(self, response: Response, value: ResponseValue, *, own_turn: bool) -> None:
        """Give a response to its request, to the `say` that waits, or to `next_response`; the only place that does.

        Some services echo no metadata, and a lost `response.created` carries none. Then the request in flight gets the
        response, unless turn detection has just committed a turn.
        """
        metadata = value.metadata if isinstance(value.metadata, Mapping) else {}
        event_id = str(metadata.get(TAG, ""))
        if event_id in self.creates:
            self._echoes_metadata = True
        elif self._echoes_metadata and value.metadata is not UNSET:  # it is announced, and names no request of ours
            event_id = self._create_like(value, lambda create: create.config and create.config.metadata == metadata)
        elif not own_turn:
            event_id = self._create_like(value, lambda create: True)
        create = self.creates.pop(event_id, None)
        if create is not None:
            response.requested_s, response.config, response.timeout_s = create.sent_s, create.config, create.timeout_s
            self._pending.answer_to(event_id, response)  # nothing where the caller stopped waiting
        elif self.claimed is not None and response.in_conversation:
            self.claimed.append(response)
        else:
            self._give(response)

    def _create_like(self, value: ResponseValue, fits: Callable[[Create], object]) -> str:
        """Return the `event_id` of the oldest request in flight that this response can answer; "" for none."""
        inside = value.conversation_id is not None
        alike = (i for i, c in self.creates.items() if c.in_conversation == inside and not c.expired and fits(c))
        return next(alike, "")

    async def next(self, timeout_s: float | None) -> Response:
        """Return the oldest response that turn detection began and no caller got yet; waits for one."""
        if self._unclaimed:
            return self._unclaimed.popleft()
        consumer: asyncio.Future[Response] = self._loop.create_future()
        self._consumers.append(consumer)
        try:
            async with asyncio.timeout(timeout_s):
                return await consumer
        except asyncio.CancelledError:
            # It may have got a response that it cannot return any more.
            if consumer.done() and not (consumer.cancelled() or consumer.exception()):
                self._give(consumer.result())
            raise
        except TimeoutError:
            raise RequestTimeout("next_response", awaited="response.created", timeout_s=timeout_s or 0.0) from None
        finally:
            self._consumers.remove(consumer)

    def _give(self, response: Response) -> None:
        """Give a response of turn detection to the consumer that waits longest, or keep it for the next."""
        waiting = next((consumer for consumer in self._consumers if not consumer.done()), None)
        if waiting is not None:
            waiting.set_result(response)
        else:
            self._unclaimed.append(response)

    def _watch(self, response: Response) -> None:
        """End a response that gets no event before its deadline; looks again when that could be."""
        if response.done:
            return
        limit_s = response.timeout_s or self.timeout_s
        left_s = response.last_event_s + limit_s - self._loop.time()
        if left_s > 0:
            response.watcher = self._loop.call_later(left_s, self._watch, response)
            return
        self._cancel(response.id)
        failure = RequestTimeout("response.create", awaited="response.done", timeout_s=limit_s).with_hint(
            f"{response.id} got no event for so long. It keeps what arrived before, and the session is open."
        )
        self.settle(response, response.value, failure)

    def settle(self, response: Response, value: ResponseValue, failure: RtnbError | None = None) -> None:
        """End a response: with what `response.done` carries, or with the error that came first."""
        self.live.pop(response.id, None)
        self._finished[response.id] = None
        bound(self._finished)
        if self.active is response:
            self.active = None
        if response.watcher is not None:
            response.watcher.cancel()
        response.lease = None
        response.finish(value, self._clock(), failure)
        for named in (response.id, ""):
            self._pending.answer("response.done", named, response)

    def fail_all(self, error: RtnbError) -> None:
        """End every response in progress: the connection is over."""
        self.creates.clear()
        self.unanswered_s = None
        for response in tuple(self.live.values()):
            self.settle(response, response.value, error.again())

    def end(self, error: RtnbError) -> None:
        """Fail the consumers: no response follows."""
        for consumer in self._consumers:
            fail(consumer, error.again())


def bound(table: dict[str, Any]) -> None:
    """Forget the oldest entry of a table of ids that is full."""
    if len(table) > KEPT_IDS:
        del table[next(iter(table))]
