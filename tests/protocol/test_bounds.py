"""Bounds of the state: time and memory per event do not grow with the conversation."""

import time
from typing import Any

import pytest

from rtnb.protocol import Connection, ContentPart, Item, Response, events
from rtnb.protocol.state import ITEM_LIMIT, RESPONSE_LIMIT, State
from tests.protocol.pair import ConnectionPair


def item(item_id: str) -> Item:
    return Item(type="message", id=item_id, role="assistant", content=(ContentPart(type="output_audio"),))


def added(number: int) -> events.ConversationItemAdded:
    previous = f"item_{number - 1}" if number else None
    return events.ConversationItemAdded(item=item(f"item_{number}"), previous_item_id=previous)


def created(number: int, **fields: Any) -> events.ResponseCreated:
    response = Response(id=f"resp_{number}", status="in_progress", conversation_id="conv_1", **fields)
    return events.ResponseCreated(response=response)


def done(number: int, status: str = "completed") -> events.ResponseDone:
    return events.ResponseDone(response=Response(id=f"resp_{number}", status=status, conversation_id="conv_1"))


def exchange(state: State, number: int) -> None:
    """Follow one answer: an item, a response and its deltas."""
    ids: Any = {"response_id": f"resp_{number}", "item_id": f"item_{number}"}
    for event in (
        created(number),
        events.ResponseOutputItemAdded(response_id=f"resp_{number}", item=item(f"item_{number}")),
        added(number),
        events.ResponseOutputAudioDelta(delta=bytes(48), **ids),
        events.ResponseOutputAudioTranscriptDelta(delta="Hi.", **ids),
        events.ConversationItemDone(item=item(f"item_{number}"), previous_item_id=None),
        done(number),
    ):
        state.apply(event)


def test_the_oldest_items_are_forgotten_first() -> None:
    state = State()
    for number in range(ITEM_LIMIT + 3):
        state.apply(added(number))
    assert (len(state.entries), len(state.order)) == (ITEM_LIMIT, ITEM_LIMIT)
    assert (state.order[0], state.order[-1]) == ("item_3", f"item_{ITEM_LIMIT + 2}")
    assert "item_2" not in state.order
    assert len(state.conversation) == ITEM_LIMIT


def test_both_sides_forget_the_same_items_and_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.protocol.state.ITEM_LIMIT", 5)
    monkeypatch.setattr("rtnb.protocol.state.RESPONSE_LIMIT", 3)
    pair = ConnectionPair()  # compares both states after every event
    for number in range(12):
        pair.serve(created(number), added(number), done(number))
    assert len(pair.state.entries) == 5
    assert list(pair.state.responses) == ["resp_9", "resp_10", "resp_11"]


def test_finished_responses_are_forgotten_before_running_ones() -> None:
    state = State()
    state.apply(created(0))
    for number in range(1, RESPONSE_LIMIT + 10):
        state.apply(created(number, metadata={"n": str(number)}))
        state.apply(done(number))
    assert len(state.responses) == RESPONSE_LIMIT
    assert "resp_0" in state.responses
    assert "resp_1" not in state.responses


def test_responses_that_never_end_are_bounded_too() -> None:
    state = State()
    for number in range(RESPONSE_LIMIT + 10):
        state.apply(created(number))
    assert len(state.responses) == RESPONSE_LIMIT
    assert state.active_response_id == f"resp_{RESPONSE_LIMIT + 9}"


def test_an_answer_takes_the_same_time_after_9_000_items() -> None:
    state, times_s = State(), []
    for number in range(9_500):
        start_s = time.perf_counter()
        exchange(state, number)
        times_s.append(time.perf_counter() - start_s)
    assert min(times_s[9_000:]) < 2 * min(times_s[:500])  # the shortest: other load does not change it


def test_order_is_a_sequence_that_events_keep_in_step() -> None:
    state = State()
    for number in range(3):
        state.apply(added(number))
    state.apply(events.ConversationItemAdded(item=item("first"), previous_item_id=None))
    state.apply(events.ConversationItemAdded(item=item("second"), previous_item_id="first"))
    state.apply(events.ConversationItemDeleted(item_id="item_1"))
    assert state.order == ["first", "second", "item_0", "item_2"]
    assert ["first" in state.order, "item_1" in state.order] == [True, False]
    assert (state.order[-1], state.order[1:3], list(state.order)) == ("item_2", ["second", "item_0"], state.order)


# --- events that are lost, late or doubled ----------------------------------------------------------------------------


def test_a_second_end_of_a_response_changes_nothing() -> None:
    state = State()
    state.apply(created(1))
    state.apply(done(1))
    state.apply(created(2))
    before = state.snapshot()
    state.apply(done(1, status="failed"))
    state.apply(created(1))
    assert state.snapshot() == before
    assert state.responses["resp_1"].response.status == "completed"


def test_the_end_of_an_unknown_response_is_remembered() -> None:
    state = State()
    state.apply(done(7))
    assert state.responses["resp_7"].done
    assert state.active_response_id is None


def test_a_lost_beginning_does_not_lose_the_text() -> None:
    client = Connection("client")
    ids: Any = {"response_id": "resp_1", "item_id": "item_1"}
    for event in (
        events.ResponseOutputItemAdded(response_id="resp_1", item=item("item_1")),
        events.ResponseOutputAudioTranscriptDelta(delta="Good ", **ids),
        events.ResponseOutputAudioTranscriptDelta(delta="day.", **ids),
        events.ResponseOutputAudioDelta(delta=bytes(4800), **ids),
        done(1),
    ):
        client.receive(Connection("server").send(event))
    entry = client.state.entries["item_1"]
    assert (entry.parts[0].transcript, entry.audio_ms, entry.response_id) == ("Good day.", 100, "resp_1")
    assert client.state.responses["resp_1"].item_ids == ["item_1"]
