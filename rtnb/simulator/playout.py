"""Audio that a service plays to its caller over WebRTC, and how much of it was played: no clock, no socket."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rtnb.audio import codec
from rtnb.protocol import events

PCM = codec("audio/pcm")
"""Format of the audio here: PCM16 at 24 kHz, whatever the session's formats; the track encodes it again."""


@dataclass
class _Reply:
    """A response that is played, or waits for its turn."""

    last_item: str
    waiting: deque[tuple[str, memoryview]] = field(default_factory=deque)
    """Its sound: item and PCM."""
    played: dict[str, int] = field(default_factory=dict)
    """Bytes of each of its items that were played."""
    started: bool = False
    ended: bool = False
    """Whether no more sound will come."""


class Playout:
    """The output audio buffer of a call: responses are played one after the other, in real time.

    >>> playout = Playout()
    >>> [event.type for event in playout.push("resp_1", "item_1", bytes(1200))]
    ['output_audio_buffer.started']
    >>> playout.end("resp_1")
    >>> sound, emitted = playout.pull(960)
    >>> len(sound), emitted
    (960, [])
    >>> playout.pull(960)[1], [event.type for event in playout.pull(960)[1]]
    ([], ['output_audio_buffer.stopped'])
    """

    def __init__(self) -> None:
        self._replies: dict[str, _Reply] = {}
        self.last_response_id = ""
        """The response that was played last, "" before the first."""

    def push(self, response_id: str, item_id: str, pcm: bytes) -> list[events.Event]:
        """Take more audio of a response; return ``started`` where it begins to play: never after `response.done`."""
        reply = self._replies.setdefault(response_id, _Reply(item_id))
        reply.waiting.append((item_id, memoryview(pcm)))
        reply.last_item = item_id
        reply.played.setdefault(item_id, 0)
        return self._start(response_id) if next(iter(self._replies)) == response_id else []

    def _start(self, response_id: str) -> list[events.Event]:
        reply = self._replies[response_id]
        if reply.started or not reply.waiting:
            return []
        reply.started, self.last_response_id = True, response_id
        return [events.OutputAudioBufferStarted(response_id=response_id)]

    def end(self, response_id: str) -> None:
        """Mark a response as complete: no more audio of it follows."""
        if response_id in self._replies:
            self._replies[response_id].ended = True

    def pull(self, n_bytes: int) -> tuple[bytes, list[events.Event]]:
        """Play on.

        Parameters
        ----------
        n_bytes : int
            How much sound the track needs now; even.

        Returns
        -------
        bytes
            PCM16 at 24 kHz, filled up with silence.
        list of Event
            `output_audio_buffer.started` and ``.stopped``, as they come.
        """
        sound, emitted = bytearray(), list[events.Event]()
        for response_id, reply in list(self._replies.items()):
            emitted += self._start(response_id)
            while reply.waiting and len(sound) < n_bytes:
                item_id, pcm = reply.waiting.popleft()
                taken, rest = pcm[: n_bytes - len(sound)], pcm[n_bytes - len(sound) :]
                sound += taken
                reply.played[item_id] += len(taken)
                if rest:
                    reply.waiting.appendleft((item_id, rest))
            if sound or not reply.ended:
                break  # it stops when this was played; the next one waits
            del self._replies[response_id]
            emitted.append(events.OutputAudioBufferStopped(response_id=response_id))
        return bytes(sound.ljust(n_bytes, b"\0")), emitted

    def clear(self) -> tuple[list[str], dict[str, int]]:
        """Drop what was not played. Return the responses and items that this cuts, items with the ms that were played.

        >>> playout = Playout()
        >>> _ = playout.push("resp_1", "item_1", bytes(1200))
        >>> _ = playout.pull(960)
        >>> playout.clear()
        (['resp_1'], {'item_1': 20})
        """
        replies = list(self._replies.values())
        cut, self._replies = list(self._replies), {}
        items = {
            item_id: reply.played[item_id] // PCM.bytes_per_ms
            for reply in replies
            for item_id in (*(item_id for item_id, _ in reply.waiting), reply.last_item)
        }
        return cut, items
