"""A class on one simulator: keys, limits, and a page that counts and tells nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

import rtnb
from rtnb.errors import AuthenticationError, RateLimited, ServiceError
from rtnb.protocol import ErrorDetail, events
from rtnb.simulator import Room, Simulator
from rtnb.simulator.admission import KeyRing
from rtnb.simulator.classroom import Classroom, Seat
from tests.simulator.caller import calling, post
from tests.simulator.plain import HANDSHAKE, fetch, gone

SCENARIO = {"steps": [{"when": {"text": "homework"}, "say": "Read chapter two."}]}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    room = Room(students=6, sessions_each=2, sessions_total=7)
    with Simulator(room=room, latency="fast", voice="babble", scenario=SCENARIO) as started:
        yield started


def _class(simulator: Simulator) -> Classroom:
    service = simulator._started().service
    assert isinstance(service, Classroom)
    return service


def _join(simulator: Simulator, key: Any) -> Any:
    return rtnb.connect(rtnb.Custom(simulator.url.replace("http", "ws"), api_key=key))


def _page(simulator: Simulator) -> str:
    return f"{simulator.url}/class/{_class(simulator).token}/"


async def _state(simulator: Simulator) -> tuple[str, dict[str, dict[str, Any]], dict[str, Any]]:
    """The page's data: as text, by student, and all of it."""
    answer = await fetch(f"{_page(simulator)}state", "GET")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.text, {row["name"]: row for row in answer.body["students"]}, answer.body


async def test_everybody_is_answered_and_sees_only_their_own(simulator: Simulator) -> None:
    keys = list(_class(simulator).handed_out.values())

    async def student(number: int) -> tuple[Any, str, str]:
        session = await _join(simulator, keys[number])
        own = (await session.ask(f"my word is pumpkin{number}")).transcript
        shared = (await session.ask("What is the homework?")).transcript
        return session, own, shared

    joined = await asyncio.gather(*map(student, range(6)))
    assert all(f"pumpkin{number}" in own and own.count("pumpkin") == 1 for number, (_, own, _) in enumerate(joined))
    assert {shared for _, _, shared in joined} == {"Read chapter two."}
    theirs = joined[0][0].log.filter("response.output_item.added")[0].event.item.id
    with pytest.raises(ServiceError, match=theirs):
        await joined[1][0].conversation.item.retrieve(theirs)

    text, rows, state = await _state(simulator)
    assert [rows[f"student 0{n}"]["answers"] for n in range(1, 7)] == [2] * 6
    assert [rows[f"student 0{n}"]["errors"] for n in range(1, 7)] == [0, 1, 0, 0, 0, 0]
    assert "teacher" not in rows
    assert not any(secret in text for secret in ("pumpkin", "homework", "chapter", simulator.key, *keys))
    assert state["wrong_keys"] == 0
    for session, _, _ in joined:
        await session.close()


async def test_limits_and_wrong_keys_are_refused_and_counted(simulator: Simulator) -> None:
    keys = list(_class(simulator).handed_out.values())
    for wrong in ("aaaa-bbbb-cccc", keys[0][:-1], ""):
        with pytest.raises(AuthenticationError):
            await _join(simulator, wrong or "x")
    sessions = [await _join(simulator, keys[0]) for _ in range(2)]
    with pytest.raises(RateLimited, match="student 01 has 2 sessions open, the most one may have"):
        await _join(simulator, keys[0])
    ephemeral = await rtnb.Azure(simulator.url, deployment="any", api_key=keys[0]).ephemeral_key()
    with pytest.raises(RateLimited, match="student 01 has 2 sessions"):  # its key, however it came by it
        await _join(simulator, ephemeral)
    sessions += [await _join(simulator, key) for key in (*keys[1:5], simulator.key)]
    with pytest.raises(RateLimited, match="The class has 7 sessions open"):
        await rtnb.connect(rtnb.Azure(simulator.url, deployment="any", api_key=keys[5]))
    for session in sessions:
        await session.close()
    await gone(simulator)
    await (await _join(simulator, keys[0])).close()  # a place that was left is free

    _, rows, state = await _state(simulator)
    assert rows["student 01"]["refused"] == 2
    assert (rows["student 06"]["refused"], rows["student 06"]["sessions"]) == (1, 0)
    assert rows["teacher"]["sessions"] == 1
    assert state["wrong_keys"] == 3


async def test_nobody_listens_in_on_anothers_call_or_ends_it(simulator: Simulator) -> None:
    student = next(iter(_class(simulator).handed_out.values()))
    async with calling(simulator, path="/openai/v1/realtime/calls", mic=False) as caller:
        await caller.until("session.created")
        beside = f"{simulator.url}/openai/v1/realtime?call_id={caller.call_id}"
        assert (await fetch(beside, "GET", headers=HANDSHAKE | {"api-key": student})).status == 404
        for key, wanted in ((student, 404), (simulator.key, 200)):
            answer = await post(simulator, f"/v1/realtime/calls/{caller.call_id}/hangup", key=key)
            assert answer.status == wanted
        async with asyncio.timeout(10):
            await caller.closed.wait()


async def test_the_page_shows_it_live_and_only_as_text(simulator: Simulator, browser: Any, pictures: Path) -> None:
    keys = list(_class(simulator).handed_out.values())
    for place in ("/class/", f"/class/{'0' * 32}/", f"/class/{'0' * 32}/state"):
        assert (await fetch(simulator.url + place, "GET")).status == 404
    problems: list[str] = []
    sessions = [await _join(simulator, key) for key in keys[:4]]
    await sessions[0].ask("Hello!")
    await sessions[1].send_raw({"type": "session.update", "session": {"type": "realtime", "<img src=x>": 1}})
    for width, scheme in ((1100, "light"), (480, "dark")):
        context = await browser.new_context(viewport={"width": width, "height": 640}, color_scheme=scheme)
        page = await context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(_page(simulator))
        await expect(page.locator("tr", has_text="student 01")).to_contain_text("connected")
        await expect(page.locator("tr", has_text="student 02")).to_contain_text("(session.<img src=x>)")
        await expect(page.locator("#figures")).to_contain_text("4 of 6")
        await page.screenshot(path=pictures / f"classroom-{scheme}-{width}.png")
        assert await page.locator("img").count() == 0
        assert problems == []
    for session in sessions:
        await session.close()
    await expect(page.locator("tr", has_text="student 01")).to_contain_text("left")
    simulator.stop()
    await expect(page.locator("#standing")).to_contain_text("does not answer")


async def test_the_page_shows_the_load_and_ends_the_sessions_of_one_student(simulator: Simulator, browser: Any) -> None:
    keys = list(_class(simulator).handed_out.values())
    first, second = [await _join(simulator, key) for key in keys[:2]]
    page = await (await browser.new_context()).new_page()
    await page.goto(_page(simulator))
    line = page.locator("tr", has_text="student 01")
    await expect(line).to_contain_text("connected")
    for _ in range(15):
        await first.input_audio_buffer.append(audio=bytes(9600))
        await asyncio.sleep(0.1)
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    _, rows, _ = await _state(simulator)
    assert rows["student 01"]["events"] > rows["student 02"]["events"] > 0
    assert rows["student 01"]["audio_s"] == 3.0
    shown = [float(await line.locator("td").nth(place).inner_text()) for place in (5, 6)]
    assert shown[0] == pytest.approx(2.0, abs=1.0)  # seconds of audio and events per second
    assert shown[1] == pytest.approx(10.0, abs=5.0)
    await line.get_by_role("button", name="End the sessions of student 01").click()
    await expect(line).to_contain_text("left")
    await expect(page.locator("tr", has_text="student 02")).to_contain_text("connected")
    assert simulator.n_sessions == 1
    await first.close()
    await second.close()


async def test_only_the_page_itself_can_end_sessions(simulator: Simulator) -> None:
    session = await _join(simulator, next(iter(_class(simulator).handed_out.values())))
    place, own = f"{_page(simulator)}end", {"Origin": simulator.url}
    wrong = f"{simulator.url}/class/{'0' * 32}/end"
    for url, headers, name, wanted in (
        (place, {}, "student 01", 403),
        (place, {"Origin": "http://elsewhere.example"}, "student 01", 403),
        (place, own, "nobody", 403),
        (wrong, own, "student 01", 404),
        (place, own, "student 01", 204),
    ):
        answer = await fetch(url, headers=headers, data=name)
        assert (answer.status, simulator.n_sessions) == (wanted, int(wanted != 204))
    await session.close()


def test_a_seat_counts_minutes_with_any_session_open_once() -> None:
    seat = Seat("student 01")
    for step, now in ((seat.enter, 0.0), (seat.enter, 60.0), (seat.leave, 120.0), (seat.leave, 180.0)):
        step(now)
    assert seat.row(999.0)["minutes"] == 3.0
    seat.enter(1_000.0)
    row = seat.row(1_030.0)
    assert (row["minutes"], row["open"], row["sessions"]) == (3.5, 1, 3)
    seat.follow(events.Error(error=ErrorDetail(type="t", code=None, message="what was said", param="p" * 90)))
    assert seat.row(0)["last_error"] == f"t ({'p' * 60})"


def test_keys_are_the_same_after_a_restart_with_the_same_key_and_one_each() -> None:
    names = Room(students=100).names
    first, again = (KeyRing("a key that is long enough", wall=float).hand_out(names) for _ in range(2))
    assert first == again
    assert len({*first.values()}) == 100
    assert (names[0], names[99]) == ("student 001", "student 100")
    with pytest.raises(ValueError, match="has 5 characters"):
        KeyRing("short", wall=float).hand_out(names)


@pytest.mark.parametrize("wrong", [{"students": 0}, {"sessions_each": True}, {"sessions_total": 2.5}])
def test_a_room_says_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"allowed: a whole number from 1"):
        Room(**wrong)
