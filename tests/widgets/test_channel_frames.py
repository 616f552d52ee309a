"""Frames and boxes: nothing changes on the way, and any order in gives the right order out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.widgets import _frames
from rtnb.widgets._frames import Counts, Frame, Inbox, Outbox, prepare, unpack

headers = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(), st.booleans(), st.none()), max_size=3
)


@given(st.text(min_size=1), st.text(), headers, st.lists(st.binary(max_size=30), max_size=4), st.integers(1, 10**9))
def test_a_frame_comes_out_as_it_went_in(
    channel: str, kind: str, header: dict[str, object], buffers: list[bytes], number: int
) -> None:
    data = prepare(channel, kind, header, buffers).numbered(number)
    frame = unpack(data)
    assert (frame.channel, frame.kind, frame.number, frame.header, frame.buffers) == (
        channel,
        kind,
        number,
        header,
        buffers,
    )
    assert len(data) % 8 == 0


def test_a_batch_comes_out_as_its_messages() -> None:
    frame = unpack(prepare("c", "k", [{"i": 0}, {"i": 1}], [b"a", b"b", b"c"], m=[2, 1]).numbered(1))
    assert frame.messages() == [({"i": 0}, [b"a", b"b"]), ({"i": 1}, [b"c"])]


@given(st.binary(max_size=200))
def test_what_is_no_frame_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="no frame"):
        unpack(data)


def test_a_cut_frame_is_told() -> None:
    data = prepare("c", "k", {}, [b"12345678"]).numbered(1)
    for end in range(len(data)):
        with pytest.raises(ValueError, match="no frame"):
            unpack(data[:end])


def test_what_cannot_be_said_is_refused_in_the_callers_thread() -> None:
    with pytest.raises(ValueError, match="allowed are"):
        prepare("c", "k", {}, [bytes(_frames.MAX_FRAME_BYTES)])
    with pytest.raises(TypeError):
        prepare("c", "k", {"x": b""})
    with pytest.raises(ValueError, match="JSON"):
        prepare("c", "k", {"x": float("nan")})


def _frames_in_order(n: int) -> list[Frame]:
    return [unpack(prepare("c", "k", {}).numbered(number)) for number in range(1, n + 1)]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_order_and_doubles_in_give_the_order_out(seed: int, n: int) -> None:
    rng = random.Random(seed)
    frames = _frames_in_order(n)
    came = frames + rng.sample(frames, k=n // 2)
    rng.shuffle(came)
    inbox = Inbox(Counts())
    out = [ready.number for frame in came for ready in inbox.take(frame)]
    assert out == list(range(1, n + 1))
    assert inbox.missing() is None
    assert inbox.counts.lost == 0


def test_a_gap_is_known_and_what_fills_it_is_counted() -> None:
    one, two, three, four = _frames_in_order(4)
    inbox = Inbox(Counts())
    assert inbox.take(one) == [one]
    assert inbox.take(four) == []
    assert inbox.missing() == (2, 3)
    assert inbox.take(two) == [two]
    assert inbox.take(three) == [three, four]
    assert inbox.counts == Counts(resent=2)


def test_a_missing_tail_is_known_from_what_the_sender_says() -> None:
    inbox = Inbox(Counts())
    assert inbox.missing(last=3) == (1, 3)
    assert inbox.missing(last=0) is None


def test_what_is_given_up_is_counted() -> None:
    *_, five = _frames_in_order(5)
    inbox = Inbox(Counts())
    inbox.take(five)
    assert inbox.skip(4) == [five]
    assert inbox.counts == Counts(lost=4)
    assert inbox.skip(10**12) == []  # at once, however many
    assert inbox.expected == 10**12 + 1


def test_a_gap_that_never_closes_holds_a_bounded_number_of_frames() -> None:
    inbox = Inbox(Counts(), expected=1)
    out = [ready for frame in _frames_in_order(2000)[1:] for ready in inbox.take(frame)]
    assert [frame.number for frame in out] == list(range(2, 2001))
    assert inbox.counts == Counts(lost=1)


def test_an_outbox_keeps_the_newest_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frames, "KEPT_FRAMES", 3)
    outbox = Outbox()
    for _ in range(5):
        outbox.add(prepare("c", "k", {}))
    assert (outbox.first, outbox.next) == (3, 6)
    monkeypatch.setattr(_frames, "KEPT_BYTES", 1000)
    outbox.add(prepare("c", "k", {}, [bytes(900)]))
    assert (outbox.first, outbox.next) == (6, 7)
    outbox.forget(6)
    assert (outbox.first, outbox.next) == (7, 7)
