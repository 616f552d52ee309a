"""`Waveform`: what it selects, and what it sends to a page."""

from typing import Any

import pytest

from rtnb._loop import shared_loop
from rtnb.protocol import events
from rtnb.trace import timeline
from rtnb.widgets.channel import shared_channel
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
    widget = Waveform(selected_ms=250.0)
    assert widget.selected_index is None


async def test_the_playback_position_is_pushed() -> None:
    scene = Scene()
    widget = Waveform(scene.session)
    item = scene.answer_now(marked(20_000))
    await eventually(lambda: widget._is_fed and "i" + item in widget.feed.timeline.stretches)
    start_ms = widget.feed.timeline.items[item].start_ms

    def cursor() -> Any:
        return widget._cursor

    await eventually(lambda: cursor() is not None)
    at_ms, until_ms = cursor()
    assert start_ms <= at_ms < until_ms == pytest.approx(start_ms + 20_000)  # without reports it moves in real time

    def report() -> None:
        scene.session.playback.report_played(item, 15_000)
        widget.feed.report_played(False)

    shared_loop().call_soon(report)
    await eventually(lambda: cursor() == pytest.approx((start_ms + 15_000, start_ms + 15_000)))  # it stands there
    scene.barge_in()
    await eventually(lambda: cursor() is None)
    scene.close()


async def test_each_page_that_joins_gets_the_whole_waveform() -> None:
    scene = Scene()
    scene.answer_now(marked(300))
    scene.answer_now(marked(300, seed=2))
    widget = Waveform(scene.session)
    for _ in range(2):  # a page, and the same after a reload
        page = Page(shared_channel())
        socket = await page.open(widget.stream_name)
        assert (await socket.until("reset")).header == {"bin_ms": 4}
        bins = await socket.until("bins")
        lane = widget.feed.timeline.bins["model"]
        assert (bins.header["lane"], bins.header["index"]) == ("model", 0)
        assert bytes(bins.buffers[0]) == lane.read().tobytes()
        assert set((await socket.until("marks")).header["marks"]) == set(widget.feed.timeline.stretches)
        await socket.connection.close()
    scene.close()


async def test_a_click_on_audio_that_is_no_longer_held_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "AUDIO_BYTES", len(pcm(1000)))
    widget = Waveform(log_of(START, *((10.0 + n / 10, delta(100)) for n in range(50))))
    page = Page(shared_channel())
    socket = await page.open(widget.stream_name)
    await socket.until("marks")
    for start_ms, length_ms in ((0, 0), (4500, 500)):
        await socket.send(widget.stream_name, "play", {"start_ms": start_ms, "length_ms": 60_000}, r=1)
        clip = await socket.until("reply")
        assert clip.header == {"held_from_ms": pytest.approx(4000)}
        assert len(bytes(clip.buffers[0])) == 48 * length_ms
    await socket.connection.close()
