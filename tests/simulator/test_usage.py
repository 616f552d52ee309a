"""Token counts against figures that were worked out by hand: `rtnb.simulator.conversation`, through real sessions."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from rtnb.protocol import Item, events
from rtnb.protocol.values import ContentPart
from rtnb.simulator.conversation import ContextTokens, ContextTooLongError, Tokens, image_tokens, text_tokens
from tests.simulator.rig import WRITTEN, Rig, spoken, world

ANSWERS = [" ".join(["word"] * count) for count in (30, 20, 40, 10, 25, 15)]


def figures(done: dict[str, Any]) -> tuple[int, ...]:
    """Input text, audio and image, cached text and audio, output text and audio."""
    usage = done["usage"]
    read, cached = usage["input_token_details"], usage["input_token_details"]["cached_tokens_details"]
    assert usage["input_tokens"] == sum(read[f"{kind}_tokens"] for kind in ("text", "audio", "image"))
    assert read["cached_tokens"] == sum(cached[f"{kind}_tokens"] for kind in ("text", "audio", "image"))
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    out = usage["output_token_details"]
    return (
        *(read[f"{kind}_tokens"] for kind in ("text", "audio", "image")),
        *(cached[f"{kind}_tokens"] for kind in ("text", "audio")),
        *(out[f"{kind}_tokens"] for kind in ("text", "audio")),
    )


async def test_six_turns_cost_what_was_worked_out_by_hand() -> None:
    """Instructions: 100 words. The user writes 10, 10, 10, 10, 10 and 10 words; the answers have as many as above."""
    scenario = {"steps": [{"say": text} for text in ANSWERS]}
    async with Rig(world(scenario=scenario)) as rig:
        rig.update(instructions=" ".join(["rule"] * 100), **WRITTEN)
        found = [figures(await rig.ask(" ".join(["user"] * 10))) for _ in range(6)]
    # Read: the instructions, all messages so far. Cached: what the response before has read, in steps of 64.
    assert found == [
        (110, 0, 0, 0, 0, 30, 0),
        (150, 0, 0, 64, 0, 20, 0),  # 110 -> 64
        (180, 0, 0, 128, 0, 40, 0),  # 150 -> 128
        (230, 0, 0, 128, 0, 10, 0),  # 180 -> 128
        (250, 0, 0, 192, 0, 25, 0),  # 230 -> 192
        (285, 0, 0, 192, 0, 15, 0),  # 250 -> 192
    ]


async def test_spoken_turns_cost_their_audio_and_nothing_twice() -> None:
    async with Rig(world(scenario={"steps": [{"say": "Yes."}, {"say": "No."}]})) as rig:
        rig.update(instructions=" ".join(["rule"] * 64))
        await rig.listen(spoken())
        await rig.until("response.done")
        first = rig.last("response.done")["response"]
        heard_ms = rig.last("input_audio_buffer.speech_stopped")["audio_end_ms"]
        heard_ms -= rig.last("input_audio_buffer.speech_started")["audio_start_ms"]
        text, audio, image, *_, spoken_text, spoken_audio = figures(first)
        assert (text, audio, image, spoken_text) == (64, heard_ms // 100, 0, 2)
        assert spoken_audio > 5
        second = figures(await rig.ask("one two three"))
        # Its own answer is read again as audio, a token per 50 ms; neither transcript is billed as text.
        assert abs(second[1] - (heard_ms // 100 + spoken_audio)) <= 1
        assert second[0] == 64 + 3
        assert second[3:5] == (64, audio // 64 * 64)


async def test_a_change_of_the_instructions_or_of_an_old_item_ends_the_cache() -> None:
    async with Rig(world(scenario={"steps": [{"say": ANSWERS[0]}] * 4})) as rig:
        rig.update(instructions=" ".join(["rule"] * 100), **WRITTEN)
        await rig.ask("one")
        assert figures(await rig.ask("two"))[3] == 64
        rig.update(instructions=" ".join(["other"] * 100))
        assert figures(await rig.ask("three"))[3] == 0
        rig.send(events.ConversationItemDelete(item_id=rig.session.state.order[0]))
        assert figures(await rig.ask("four"))[3] == 64  # the instructions are still the same


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "size, detail, expected",
    [
        ((512, 512), "high", 85 + 170),
        ((1024, 1024), "", 85 + 4 * 170),  # shrunk to 768 x 768: 2 x 2 tiles
        ((2048, 4096), "auto", 85 + 6 * 170),  # 1024 x 2048, then 768 x 1536: 2 x 3 tiles
        ((2048, 4096), "low", 85),
    ],
)
def test_an_image_costs_by_its_size(size: tuple[int, int], detail: str, expected: int) -> None:
    assert image_tokens(picture(*size), detail) == expected


async def test_an_image_is_read_with_every_response() -> None:
    async with Rig(world(scenario={"steps": [{"say": "A square."}, {"say": "Still."}]})) as rig:
        rig.update(**WRITTEN)
        part = ContentPart(type="input_image", image_url=picture(512, 512))
        rig.send(events.ConversationItemCreate(item=Item(type="message", role="user", content=(part,))))
        assert figures(await rig.ask("What is it?"))[2] == 255
        assert figures(await rig.ask("And now?"))[2] == 255


def filled(count: int) -> dict[str, Tokens]:
    return {str(number): Tokens(text=10) for number in range(count)}


def test_the_oldest_items_are_dropped_for_good_where_the_context_is_full() -> None:
    context, costs = ContextTokens(100), filled(12)
    reading = context.read(costs, "")
    assert reading.ids == tuple(costs)[2:]
    assert reading.details.text_tokens == 100
    assert reading.details.cached_tokens == 0
    del costs["11"]
    assert context.read(costs, "").ids == tuple(costs)[2:]  # what was dropped stays away


def test_the_retention_ratio_drops_more_at_once_and_so_keeps_the_cache_longer() -> None:
    order = tuple(filled(12))
    truncation = {"type": "retention_ratio", "retention_ratio": 0.5}
    assert ContextTokens(100).read(filled(12), "", truncation=truncation).ids == order[7:]
    limited = {**truncation, "token_limits": {"post_instructions": 60}}
    assert ContextTokens(100).read(filled(12), "", truncation=limited).ids == order[9:]


def test_without_truncation_a_full_context_is_an_error() -> None:
    with pytest.raises(ContextTooLongError, match="120 tokens; the limit is 100"):
        ContextTokens(100).read(filled(12), "", truncation="disabled")


async def test_a_session_with_truncation_disabled_fails_the_response_and_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Rig(world(scenario={"steps": [{"say": "Yes."}] * 3})) as rig:
        rig.session.conversation.tokens = ContextTokens(100)
        rig.update(instructions="Be kind.", **WRITTEN, truncation="disabled")
        done = await rig.ask(" ".join(["long"] * 200))
        assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "context_length_exceeded")
        rig.update(truncation="auto")
        assert (await rig.ask("short"))["status"] == "completed"


@pytest.mark.parametrize("cap", [1, 5, 17])
@pytest.mark.parametrize("modality", ["text", "audio"])
async def test_no_response_exceeds_its_token_limit(cap: int, modality: str) -> None:
    async with Rig(world(scenario={"steps": [{"say": ANSWERS[0]}]})) as rig:
        done = await rig.ask("Go on.", max_output_tokens=cap, output_modalities=(modality,))
        assert (done["status"], done["output"][0]["status"]) == ("incomplete", "incomplete")
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert (cap if modality == "text" else 1) <= done["usage"]["output_tokens"] <= cap


async def test_the_quota_is_used_up_by_all_responses_of_a_minute() -> None:
    async with Rig(world(scenario={"steps": [{"say": "Yes."}] * 2})) as rig:
        used = 0
        for _ in range(2):
            used += (await rig.ask("one"))["usage"]["total_tokens"]
            await rig.until("rate_limits.updated")
        (limit,) = rig.last("rate_limits.updated")["rate_limits"]
        assert limit["remaining"] == 15_000_000 - used
        assert 0 < limit["reset_seconds"] <= 60


def test_text_costs_a_token_per_word_and_mark() -> None:
    assert text_tokens("") == 0
    assert text_tokens("One, two.") == 4
