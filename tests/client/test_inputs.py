"""Input of the user: speech in any form, paced and answered, images, transcription sessions and MCP tools."""

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rtnb
from rtnb.audio import codec, resample, write_wav
from rtnb.errors import AudioError, LocalProtocolError, RequestTimeout, ServiceError
from rtnb.protocol import SemanticVad, ServerVad
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, Transcription
from rtnb.simulator import Simulator
from tests.client.peer import Peer
from tests.client.virtual import now, outcome, settle, talking

SERVER_VAD = {"type": "server_vad"}


def tone(ms: int, *, rate_hz: int = 24_000) -> np.ndarray[Any, np.dtype[np.float32]]:
    times = np.arange(ms * rate_hz // 1000) / rate_hz
    return (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def appended(peer: Peer) -> list[bytes]:
    return [base64.b64decode(message["audio"]) for message in peer.asked("input_audio_buffer.append")]


@talking(both=True)
async def test_push_to_talk_commits_and_asks_at_once(peer: Peer, session: rtnb.Session) -> None:
    start_s = now()
    response = await (await session.say(tone(250), rate_hz=24_000, instructions="Brief."))
    assert response.transcript == "Hello there."
    assert [len(chunk) for chunk in appended(peer)] == [4_800, 4_800, 2_400]
    assert np.allclose(codec("audio/pcm").decode(b"".join(appended(peer))), tone(250), atol=1e-4)
    assert [message["type"] for message in peer.heard[-2:]] == ["input_audio_buffer.commit", "response.create"]
    assert peer.heard[-1]["response"]["instructions"] == "Brief."
    assert now() == start_s


@talking()
async def test_what_was_left_in_the_buffer_is_not_part_of_it(peer: Peer, session: rtnb.Session) -> None:
    await session.input_audio_buffer.append(tone(50))
    assert await session.say(tone(200), rate_hz=24_000, respond=False) is None
    assert len(peer.asked("input_audio_buffer.clear")) == 1
    assert peer.asked("response.create") == []


@talking()
async def test_too_short_is_refused_in_the_services_words(peer: Peer, session: rtnb.Session) -> None:
    error = await outcome(session.say(tone(50), rate_hz=24_000))
    assert isinstance(error, ServiceError)
    assert error.code == "input_audio_buffer_commit_empty"
    assert "100 ms" in error.__notes__[0]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("form, wire_hz", [("audio/pcm", 24_000), ("audio/pcmu", 8_000)])
@talking(both=True)
async def test_any_rate_in(peer: Peer, session: rtnb.Session, rate_hz: int, form: Any, wire_hz: int) -> None:
    await session.update(input_format=form)
    audio = tone(1_000, rate_hz=rate_hz)
    await session.say(audio, rate_hz=rate_hz, respond=False)
    heard = codec(form).decode(b"".join(appended(peer)))
    expected = resample(audio, from_rate_hz=rate_hz, to_rate_hz=wire_hz)
    assert np.allclose(heard, expected, atol=1e-4 if form == "audio/pcm" else 0.02)
    assert {len(chunk) for chunk in appended(peer)[:-1]} == {4_800 if form == "audio/pcm" else 800}


@talking()
async def test_any_form_in(peer: Peer, session: rtnb.Session, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    write_wav(path, tone(200, rate_hz=16_000), rate_hz=16_000)
    await session.say(path, respond=False)
    await session.say(str(path), respond=False)
    with pytest.raises(AudioError, match="has 16000 Hz"):
        await session.say(path, rate_hz=24_000)
    ints = (tone(200) * 32_767).astype(np.int16)
    await session.say(np.stack([ints, ints], axis=1), rate_hz=24_000, respond=False)
    assert len(b"".join(appended(peer))) == 3 * 9_600
    assert session.log.filter("input_audio_buffer.append").to_frame().audio_ms.sum() == 600


@pytest.mark.parametrize(
    "audio, rate_hz, words",
    [
        *((np.zeros(24_000, dtype), None, "without rate_hz") for dtype in ("float32", "float64", "int16")),
        (np.zeros((100, 7), np.float32), 24_000, "shape"),
        (b"\x00\x00", None, "bytes"),
    ],
)
@talking()
async def test_what_is_no_audio(peer: Peer, session: rtnb.Session, audio: Any, rate_hz: int | None, words: str) -> None:
    with pytest.raises(AudioError, match=words) as caught:
        await session.say(audio, rate_hz=rate_hz)
    assert "rate_hz" not in words or "rate_hz=24_000" in caught.value.__notes__[0]
    await settle()
    assert peer.heard == []


@talking()
async def test_append_takes_arrays_and_whole_samples(peer: Peer, session: rtnb.Session) -> None:
    await session.input_audio_buffer.append(b"\x00\x40")
    await session.input_audio_buffer.append(np.array([0.5], np.float32))
    with pytest.raises(AudioError, match="even"):
        await session.input_audio_buffer.append(b"\x00")
    await settle()
    assert appended(peer) == [b"\x00\x40", b"\x00\x40"]


# --- turn detection ---------------------------------------------------------------------------------------------------


@talking(both=True, turn_detection=SERVER_VAD)
async def test_with_turn_detection_it_is_spoken_in_real_time(peer: Peer, session: rtnb.Session) -> None:
    start_s = now()
    response = await session.say(tone(300), rate_hz=24_000, trailing_silence_ms=5_000)
    assert (await response).transcript == "Hello there."
    chunks = appended(peer)
    assert len(chunks) == 12  # silence after the speech, and no more of it once the turn was committed
    assert not any(b"".join(chunks[3:]))
    assert now() - start_s == pytest.approx(1.3, abs=0.11)
    assert session.conversation.items[-1].role == "assistant"


@pytest.mark.parametrize(
    "detection, silence_ms",
    [(SERVER_VAD_DEFAULTS, 500), (ServerVad(silence_duration_ms=700), 1_000), (SemanticVad(eagerness="high"), 2_300)],
)
@talking()
async def test_silence_enough_to_end_the_turn(
    peer: Peer, session: rtnb.Session, detection: Any, silence_ms: int
) -> None:
    await session.update(turn_detection=detection)
    start_s = now()
    await session.say(tone(200), rate_hz=24_000, respond=False, paced=False)
    assert now() == start_s
    await settle()
    assert len(b"".join(appended(peer))) / 48 == 200 + silence_ms


@talking(turn_detection=SERVER_VAD)
async def test_faster_than_real_time(peer: Peer, session: rtnb.Session) -> None:
    start_s = now()
    await session.say(tone(1_000), rate_hz=24_000, respond=False, paced=4, trailing_silence_ms=0)
    assert now() - start_s == pytest.approx(0.25)


@talking(turn_detection=SERVER_VAD)
async def test_say_times_out_where_the_service_detects_no_speech(peer: Peer, session: rtnb.Session) -> None:
    with pytest.raises(RequestTimeout, match=r"no input_audio_buffer\.committed within 0 s") as caught:
        await session.say(tone(200), rate_hz=24_000, paced=False, timeout_s=0)
    assert "detected no speech" in caught.value.__notes__[0]


@talking(both=True, turn_detection={**SERVER_VAD, "create_response": False})
async def test_the_service_decides_when_and_we_whether(peer: Peer, session: rtnb.Session) -> None:
    response = await session.say(tone(800), rate_hz=24_000, instructions="Brief.")
    assert (await response).transcript == "Hello there."
    (asked,) = peer.asked("response.create")
    assert asked["response"]["instructions"] == "Brief."


@talking(turn_detection=SERVER_VAD)
async def test_settings_of_a_response_the_service_creates_are_refused(peer: Peer, session: rtnb.Session) -> None:
    with pytest.raises(TypeError, match="takes no instructions"):
        await session.say(tone(200), rate_hz=24_000, instructions="Brief.")


@pytest.mark.parametrize("late", [False, True], ids=["the last turn ends in time", "its end is still on its way"])
@talking(turn_detection={**SERVER_VAD, "silence_duration_ms": 200}, outputs=[("Second answer.",)])
async def test_the_answer_to_the_last_of_two_turns(peer: Peer, session: rtnb.Session, late: bool) -> None:
    """A pause in the recording makes two turns; the first answer is interrupted by the second."""

    async def hear_two() -> None:
        await asyncio.sleep(0.25)  # 2 chunks of 4; 5 of silence follow
        await peer.send(peer.speech("item_1"), *peer.turn_end("item_1"))
        first = await peer.begin()
        if late:
            await peer.send(peer.speech("item_2"))
        await asyncio.sleep(0.7 if late else 0.4)
        if not late:
            await peer.send(peer.speech("item_2"))
        await peer.end(first, status="cancelled", reason="turn_detected")
        await peer.send(*peer.turn_end("item_2"), *peer.respond({}))

    hearing = asyncio.create_task(hear_two())
    response = await (await session.say(tone(400), rate_hz=24_000))
    assert response.transcript == "Second answer."
    await hearing


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
