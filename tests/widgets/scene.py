"""A session on the background loop whose service a test plays, as widgets meet it; used in kernels and in tests."""

import asyncio
from typing import Any

import numpy as np

from rtnb._loop import shared_loop
from rtnb.client import Session, open_session
from rtnb.protocol import events
from rtnb.protocol.values import AudioFormat, ContentPart, Item
from tests.widgets.service import ScriptedTarget, Service


def marked(ms: float, *, seed: int = 0) -> np.ndarray:
    """Samples at 24 kHz of which none is zero and no stretch is like another: a gap or a slip shows."""
    samples = np.random.default_rng(seed).integers(1, 3_000, int(24 * ms))
    return (samples * np.where(np.arange(len(samples)) % 2, 1, -1)).astype(np.int16)


class Scene:
    """A session and its service; every method may be called from a cell."""

    def __init__(self, *, output_format: str | None = None) -> None:
        self.session: Session
        self.service: Service
        self._tasks: list[asyncio.Task[Any]] = []
        shared_loop().run(self._open(output_format), timeout_s=10)

    async def _open(self, output_format: str | None) -> None:
        target = ScriptedTarget()
        self.service = target.service
        self._tasks.append(asyncio.create_task(self.service.run()))
        await self.service.open()
        self.session = await open_session(target)
        if output_format:
            await self.session.update(output_format=AudioFormat(type=output_format))

    def close(self) -> None:
        shared_loop().run(self.session.close(), timeout_s=10)

    def start(self, samples: np.ndarray, *, speed: float | None, chunk_ms: float = 100.0, text: str = "") -> Any:
        """Begin to stream an answer, `speed` times as fast as it is spoken (None: at once); returns a future."""
        return shared_loop().submit(self.answer(samples, speed=speed, chunk_ms=chunk_ms, text=text))

    def answer_now(self, samples: np.ndarray, **options: Any) -> str:
        """Stream a whole answer and return its item's id."""
        return str(self.start(samples, **{"speed": None, **options}).result(60))

    async def answer(
        self, samples: np.ndarray, *, speed: float | None, chunk_ms: float = 100.0, text: str = "", encode: Any = None
    ) -> str:
        service, loop = self.service, asyncio.get_running_loop()
        response_id = await service.begin()
        item_id = await service.item(response_id)
        part = ContentPart(type="audio", transcript="")
        await service.say(events.ResponseContentPartAdded(response_id=response_id, item_id=item_id, part=part))
        size, words, start_s = int(24 * chunk_ms), text.split(" ") if text else [], loop.time()
        ids = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        try:
            for number, position in enumerate(range(0, len(samples), size)):
                if speed and (wait_s := start_s + number * chunk_ms / 1000 / speed - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if words:
                    await service.words(response_id, item_id, words.pop(0) + (" " if words else ""))
                pcm = samples[position : position + size]
                delta = encode(pcm) if encode else pcm.tobytes()
                await service.say(events.ResponseOutputAudioDelta(**ids, delta=delta))
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
        shared_loop().run(self.service.speech_started(), timeout_s=10)

    def say(self, *many: Any) -> None:
        """The service says events."""

        async def all_of_them() -> None:
            for event in many:
                await self.service.say(event)

        shared_loop().run(all_of_them(), timeout_s=10)
