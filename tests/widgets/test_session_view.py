"""`SessionView` and `SessionFeed`: rows and the end of a session are pushed, and nothing stays behind."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

import rtnb
from rtnb._loop import shared_loop
from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.protocol import events
from rtnb.widgets import _session_view
from rtnb.widgets._session_view import SessionView
from rtnb.widgets.speaker import Speaker
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
from tests.widgets.page import eventually
from tests.widgets.scene import Scene, at_work, marked, on_loop, turn


class Taker(SessionView):
    """Notes what it is given."""

    _esm = "export default {}"

    def __init__(self, session: Session | EventLog | None = None) -> None:
        self.calls: list[str] = []
        self.numbers: list[int] = []
        self.slices: list[int] = []
        super().__init__(session)

    def _on_session(self, source: Session | EventLog) -> None:
        self.calls.append("session")
        self.numbers, self.slices = [], []

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        self.numbers += [row.number for row in rows]
        self.slices.append(len(rows))

    def _on_end(self) -> None:
        self.calls.append("end")


def cleared(log: EventLog, count: int) -> None:
    for _ in range(count):
        log.record("received", events.InputAudioBufferCleared(), monotonic_s=log.next_number / 100, wall_time=0.0)


async def test_an_idle_view_has_no_timer_and_no_task(scene: Scene) -> None:
    before = at_work()
    view = Taker(scene.session)
    await eventually(lambda: len(view.numbers) == len(scene.session.log))
    assert at_work() == before


async def test_closed_views_leave_nothing_behind(scene: Scene) -> None:
    log, reader = scene.session.log, scene.session._dispatcher._reader
    before = at_work(), len(log._subscribers), len(_session_view._feeds), repr(reader)
    views = [Waveform(scene.session), Speaker(scene.session), Transcript(scene.session)]
    scene.answer_now(marked(300))  # a virtual speaker plays it, so there is a timer for its end
    turn()
    assert len(log._subscribers) == before[1] + 1  # one for all of them
    views.append(Taker(scene.session))  # closed at once
    for view in (*views, *views):
        view.close()
    assert (at_work(), len(log._subscribers), len(_session_view._feeds), repr(reader)) == before
    assert scene.session.playback._flushers == []


async def test_views_share_one_timeline_and_one_decoder(scene: Scene) -> None:
    first, speaker = Waveform(scene.session), Speaker(scene.session)
    scene.answer_now(marked(300))
    turn()
    late = Waveform(scene.session)
    turn()
    assert first.feed is speaker.feed is late.feed
    assert len(late.feed.timeline.bins["model"]) >= 75


async def test_a_late_view_gets_the_old_rows_and_then_the_new_ones(scene: Scene) -> None:
    first = Taker(scene.session)
    scene.answer_now(marked(300))
    turn()
    late = Taker(scene.session)
    scene.answer_now(marked(300))
    await eventually(lambda: late.numbers == list(range(len(scene.session.log))))
    assert first.numbers == late.numbers


@pytest.mark.parametrize("side", ["client", "service", "before"])
async def test_the_end_is_pushed_once_after_the_last_row(scene: Scene, side: str) -> None:
    if side == "before":
        scene.close()
    view = Taker(scene.session)
    turn()
    if side == "client":
        scene.close()
    elif side == "service":
        on_loop(scene.service.transport.close)
    await eventually(lambda: view.calls == ["session", "end"])
    assert view.numbers == list(range(len(scene.session.log)))
    turn()
    assert view.calls == ["session", "end"]


async def test_a_session_on_another_loop_is_followed_to_its_end(session: rtnb.Session) -> None:
    view = Taker(session)
    await eventually(lambda: view.numbers == list(range(len(session.log))))
    await session.close()
    await eventually(lambda: view.calls == ["session", "end"])
    assert view.numbers == list(range(len(session.log)))


async def test_another_session_starts_anew() -> None:
    first, second = EventLog(), EventLog()
    cleared(first, 3)
    cleared(second, 2)
    view = Taker()
    for log in (first, second, first, second):
        view.session = log
    await eventually(lambda: view.numbers == [0, 1])
    cleared(first, 1)
    turn()
    assert view.numbers == [0, 1]
    assert first._subscribers == ()


async def test_a_long_log_comes_in_slices_and_the_loop_stays_free() -> None:
    log = EventLog(limit_bytes=2**30)
    cleared(log, 150_000)
    gaps: list[float] = []

    async def watch(view: Taker) -> None:
        before = time.perf_counter()
        while len(view.numbers) < 150_000:
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - before)
            before = time.perf_counter()

    view, _waveform = Taker(log), Waveform(log)
    shared_loop().run(watch(view), 60)
    assert view.numbers == list(range(150_000))
    assert max(view.slices) <= 2_000
    assert sorted(gaps)[len(gaps) // 2] < 0.01


async def test_rows_that_a_full_log_drops_are_skipped_and_none_comes_twice() -> None:
    log = EventLog(limit_bytes=200 * 1_300)
    cleared(log, 100)
    view = Taker(log)
    turn()
    on_loop(cleared, log, 2_000)  # on the background loop: the view gets its turn only after all of them
    await eventually(lambda: view.numbers[-1] == 2_099)
    assert log.dropped.events
    assert view.numbers == sorted(set(view.numbers))
    assert view.numbers[100:] == list(range(log[0].number, 2_100))
    cleared(log, 1)
    await eventually(lambda: view.numbers[-1] == 2_100)  # and it follows on, though the log stays full


async def test_part_of_a_log_is_followed_by_its_row_numbers() -> None:
    log = EventLog()
    cleared(log, 10)
    view = Taker(log[4:7])
    await eventually(lambda: view.numbers == [4, 5, 6])
    assert view.feed.row(5) is log[5]
    assert view.feed.row(1) is None


async def test_a_view_that_fails_is_reported_and_the_others_go_on(reported: list[Any]) -> None:
    class Broken(Taker):
        def _on_rows(self, rows: Sequence[LogRow]) -> None:
            raise ValueError("a mistake")

    log = EventLog()
    _broken, view = Broken(log), Taker(log)
    cleared(log, 3)
    await eventually(lambda: view.numbers == [0, 1, 2])
    assert [str(problem["exception"]) for problem in reported] == ["a mistake"]
