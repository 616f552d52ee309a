"""`Waveform`: what it selects, and what it sends to a page."""

from typing import Any

import pytest

from rtnb._loop import shared_loop
from rtnb.protocol import events
from rtnb.trace import timeline
from rtnb.widgets.waveform import Waveform
from tests.trace.rows import START, delta, log_of, pcm
from tests.widgets.page import Page, eventually
from tests.widgets.scene import Scene, marked


async def test_a_moment_selects_its_event_and_back() -> None:
    widget: Any = Waveform(log_of(*((10.0 + n / 10, events.InputAudioBufferCleared()) for n in range(10))))
    await eventually(lambda: widget._is_fed and widget.feed.timeline.now_ms == pytest.approx(900))
    widget.selected_ms = 250.0
    assert widget.selected_index == 2
    widget.selected_index = 7
    assert widget.selected_ms == pytest.approx(700)
    widget.selected_ms = None
    assert (widget.selected_ms, widget.selected_index) == (None, None)
    widget.selected_index = 99  # not there (yet)
    assert (widget.selected_ms, widget.selected_index) == (None, 99)


def test_a_moment_can_be_selected_before_there_is_a_session() -> None:
    assert Waveform(selected_ms=250.0).selected_index is None


async def test_the_playback_position_is_pushed(scene: Scene) -> None:
    widget: Any = Waveform(scene.session)
    item = scene.answer_now(marked(20_000))
    await eventually(lambda: widget._is_fed and "i" + item in widget.feed.timeline.stretches)
    start_ms = widget.feed.timeline.items[item].start_ms
    await eventually(lambda: widget._cursor is not None)
    at_ms, until_ms = widget._cursor
    assert start_ms <= at_ms < until_ms == pytest.approx(start_ms + 20_000)  # without reports it moves in real time

    def report() -> None:
        scene.session.playback.report_played(item, 15_000)
        widget.feed.report_played(False)

    shared_loop().call_soon(report)
    await eventually(lambda: widget._cursor == pytest.approx((start_ms + 15_000, start_ms + 15_000)))  # it stands there
    scene.barge_in()
    await eventually(lambda: widget._cursor is None)


async def test_each_page_that_joins_gets_the_whole_waveform(scene: Scene, page: Page) -> None:
    scene.answer_now(marked(300))
    scene.answer_now(marked(300, seed=2))
    widget = Waveform(scene.session)
    for _ in range(2):  # a page, and the same after a reload
        await page.join(widget.stream_name)
        assert (await page.until("reset")).header == {"bin_ms": 4}
        bins = await page.until("bins")
        lane = widget.feed.timeline.bins["model"]
        assert (bins.header["lane"], bins.header["index"]) == ("model", 0)
        assert bytes(bins.buffers[0]) == lane.read().tobytes()
        assert set((await page.until("marks")).header["marks"]) == set(widget.feed.timeline.stretches)


@pytest.mark.parametrize("start_ms, length_ms", [(0, 0), (4500, 500)])
async def test_a_click_on_audio_that_is_no_longer_held_gets_an_answer(
    page: Page, start_ms: int, length_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "AUDIO_BYTES", len(pcm(1000)))
    widget = Waveform(log_of(START, *((10.0 + n / 10, delta(100)) for n in range(50))))
    await page.join(widget.stream_name)
    await page.until("marks")
    clip = await page.ask(widget.stream_name, "play", start_ms=start_ms, length_ms=60_000)
    assert clip.header == {"held_from_ms": pytest.approx(4000)}
    assert len(bytes(clip.buffers[0])) == 48 * length_ms
