"""A session on the background loop whose service a test plays, as widgets meet it; used in kernels and in tests."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rtnb._loop import shared_loop
from rtnb.client import Session, open_session
from rtnb.protocol import events
from rtnb.protocol.values import AudioFormat, ContentPart, Item
from tests.widgets.service import ScriptedTarget, Service


def on_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on the background loop, let the loop do what that began, and return the awaited result."""

    async def call() -> Any:
        result = function(*arguments)
        result = await result if asyncio.iscoroutine(result) else result
        for _ in range(5):
            await asyncio.sleep(0)
        return result

    return shared_loop().run(call(), timeout_s=10)


def turn() -> None:
    """Let the background loop do what it was given."""
    on_loop(int)


def at_work() -> int:
    """Count the timers and tasks of the background loop."""

    def count() -> int:
        loop: Any = asyncio.get_running_loop()
        return sum(not timer.cancelled() for timer in loop._scheduled) + len(asyncio.all_tasks()) - 1

    turn()
    return int(on_loop(count))


def marked(ms: float, *, seed: int = 0) -> np.ndarray:
    """Samples at 24 kHz of which none is zero and no stretch is like another: a gap or a slip shows."""
    samples = np.random.default_rng(seed).integers(1, 3_000, int(24 * ms))
    return (samples * np.where(np.arange(len(samples)) % 2, 1, -1)).astype(np.int16)


class Scene:
    """A session and its service; every method may be called from a cell."""

    session: Session
    service: Service

    def __init__(self, *, output_format: str | None = None) -> None:
        on_loop(self._open, output_format)

    async def _open(self, output_format: str | None) -> None:
        target = ScriptedTarget()
        self.service = target.service
        self._running = asyncio.create_task(self.service.run())
        await self.service.open()
        self.session = await open_session(target)
        if output_format:
            await self.session.update(output_format=AudioFormat(type=output_format))

    def close(self) -> None:
        on_loop(self.session.close)

    def start(self, samples: np.ndarray, **options: Any) -> Any:
        """Begin to stream an answer; returns a future. Options are those of `answer`."""
        return shared_loop().submit(self.answer(samples, **options))

    def answer_now(self, samples: np.ndarray, **options: Any) -> str:
        """Stream a whole answer and return its item's id."""
        return str(self.start(samples, **options).result(60))

    async def answer(
        self,
        samples: np.ndarray,
        *,
        speed: float | None = None,
        chunk_ms: float = 100.0,
        text: str = "",
        encode: Callable[[np.ndarray], bytes] = np.ndarray.tobytes,
    ) -> str:
        """Stream an answer, `speed` times as fast as it is spoken (None: at once); return its item's id."""
        service, loop = self.service, asyncio.get_running_loop()
        response_id = await service.begin()
        item_id = await service.item(response_id)
        piece = partial(service.piece, response_id=response_id, item_id=item_id)
        await piece(events.ResponseContentPartAdded, part=ContentPart(type="audio", transcript=""))
        size, words, start_s = int(24 * chunk_ms), text.split(" ") if text else [], loop.time()
        try:
            for number, position in enumerate(range(0, len(samples), size)):
                if speed and (wait_s := start_s + number * chunk_ms / 1000 / speed - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if words:
                    await service.words(response_id, item_id, words.pop(0) + (" " if words else ""))
                await piece(events.ResponseOutputAudioDelta, delta=encode(samples[position : position + size]))
            if words:
                await service.words(response_id, item_id, " ".join(words))
            await service.audio_done(response_id, item_id)
            content = (ContentPart(type="output_audio", transcript=text),)
            item = Item(type="message", id=item_id, role="assistant", status="completed", content=content)
            await service.say(events.ResponseOutputItemDone(response_id=response_id, output_index=0, item=item))
            await service.finish(response_id, output=[item])
        except asyncio.CancelledError:
            await service.finish(response_id, status="cancelled", reason="turn_detected")
            raise
        return item_id

    def barge_in(self) -> None:
        """The user speaks into the answer."""
        on_loop(self.service.speech_started)
