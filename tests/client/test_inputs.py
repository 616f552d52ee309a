"""Images, transcription sessions and MCP tools."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rtnb
from rtnb.errors import LocalProtocolError
from rtnb.protocol.values import Transcription
from rtnb.simulator import Simulator
from tests.client.peer import Peer
from tests.client.virtual import outcome, talking

PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def _file(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("form", ["uint8", "float", "bytes", "path", "jpeg"])
@talking()
async def test_an_image_reaches_the_service_as_it_is(
    peer: Peer, session: rtnb.Session, form: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(_file("PNG"))
    image = {"uint8": PIXELS, "float": PIXELS / 255, "bytes": _file("PNG"), "path": path, "jpeg": _file("JPEG")}[form]
    item = await session.say_image(image, detail="low")
    assert item.content[0].type == "input_image"
    (sent,) = peer.asked("conversation.item.create")
    part = sent["item"]["content"][0]
    head, data = part["image_url"].split(",")
    assert (part["type"], part["detail"]) == ("input_image", "low")
    assert head == f"data:image/{'jpeg' if form == 'jpeg' else 'png'};base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as received:
        pixels = np.asarray(received.convert("RGB"))
    assert pixels.shape == PIXELS.shape
    if form != "jpeg":
        assert (pixels == PIXELS).all()


@pytest.mark.parametrize(
    "image, words",
    [
        (b"GIF89a....", "neither PNG nor JPEG"),
        (np.zeros((2, 2, 5)), "pixels of shape"),
        (np.zeros(4), "pixels of shape"),
        *((np.full((2, 2), value), "0 to 255") for value in (256, -1, np.uint16(65_535), np.nan)),
    ],
)
@talking()
async def test_what_is_no_image_is_refused_before_anything_is_sent(
    peer: Peer, session: rtnb.Session, image: Any, words: str
) -> None:
    error = await outcome(session.say_image(image))
    assert isinstance(error, ValueError)
    assert words in str(error)
    assert not peer.asked("conversation.item.create")


# --- transcription sessions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_transcription_session_transcribes_and_answers_nothing(dialect: Any) -> None:
    with Simulator(latency="fast", voice="babble", dialect=dialect) as simulator:
        speech = simulator.speech("What is a delta?")
        async with rtnb.connect(simulator, intent="transcription", transcription="whisper-1") as session:
            assert session.config.type == "transcription"
            await session.say(speech.audio, rate_hz=24_000, paced=False, respond=False)
            async for event in session:
                if event.type == "conversation.item.input_audio_transcription.completed":
                    assert event.transcript == "What is a delta?"
                    break
            with pytest.raises(LocalProtocolError, match="no responses"):
                await session.say(speech.audio, rate_hz=24_000)
            assert not session.log.filter("response.created")


TRANSCRIPTION = Transcription(model="gpt-live-transcribe", languages=("en", "de"), keywords=("delta",), delay="low")


@talking(transcription=TRANSCRIPTION, include=["item.input_audio_transcription.logprobs"])
async def test_transcription_settings_reach_the_service(peer: Peer, session: rtnb.Session) -> None:
    (sent,) = peer.asked("session.update")
    audio = sent["session"]["audio"]["input"]
    assert sent["session"]["include"] == ["item.input_audio_transcription.logprobs"]
    assert audio["transcription"] == {
        "model": "gpt-live-transcribe",
        "languages": ["en", "de"],
        "keywords": ["delta"],
        "delay": "low",
    }


# --- MCP --------------------------------------------------------------------------------------------------------------

MCP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example", "require_approval": "always"}


@talking(tools=[MCP])
async def test_mcp_tools_are_listed_and_calls_are_approved_or_denied(peer: Peer, session: rtnb.Session) -> None:
    tools = {
        "id": "item_list",
        "type": "mcp_list_tools",
        "server_label": "shop",
        "tools": [{"name": "find", "input_schema": {}}, {"name": "buy", "input_schema": {}}],
    }
    request = {"type": "mcp_approval_request", "server_label": "shop", "arguments": "{}"}
    requests = [{"id": f"item_{name}", "name": name, **request} for name in ("find", "buy")]
    for item in (tools, *requests):
        await peer.send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
    await outcome(session.input_audio_buffer.clear())  # its reply comes after them
    assert session.tools.mcp_tools == {"shop": ("find", "buy")}
    find, buy = session.tools.approval_requests
    assert (find.name, buy.name) == ("find", "buy")
    await session.tools.approve(find)
    await session.tools.deny(str(buy.id), reason="too dear")
    assert session.tools.approval_requests == ()
    answers = [message["item"] for message in peer.asked("conversation.item.create")]
    assert [(one["type"], one["approval_request_id"], one["approve"]) for one in answers] == [
        ("mcp_approval_response", "item_find", True),
        ("mcp_approval_response", "item_buy", False),
    ]
    assert answers[1]["reason"] == "too dear"
    summaries = " ".join(session.log.to_frame().summary)
    assert "find" in summaries
    assert "shop" in summaries
