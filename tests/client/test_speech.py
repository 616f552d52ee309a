"""Saying something aloud: any audio in, the session's format out, paced, answered."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.audio import codec, decode_pcm16, resample, write_wav
from rtnb.errors import AudioError, LocalProtocolError, RequestTimeout, ServiceError
from rtnb.protocol import SemanticVad, ServerVad, events
from rtnb.protocol.values import SERVER_VAD_DEFAULTS
from tests.client.conftest import Joined


def tone(ms: int, *, rate_hz: int = 24_000) -> np.ndarray[Any, np.dtype[np.float32]]:
    times = np.arange(ms * rate_hz // 1000) / rate_hz
    return (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def appended(joined: Joined) -> list[bytes]:
    return [event.audio for event in joined.service.said(events.InputAudioBufferAppend)]


async def push_to_talk(joined: Joined, **settings: Any) -> None:
    await joined.session.update(turn_detection=None, **settings)


async def test_push_to_talk_commits_and_asks(joined: Joined) -> None:
    await push_to_talk(joined)
    response = await (await joined.session.say(tone(250), rate_hz=24_000, instructions="Brief."))
    assert response.transcript == "Hello there."
    assert [len(chunk) for chunk in appended(joined)] == [4_800, 4_800, 2_400]
    assert np.allclose(decode_pcm16(b"".join(appended(joined))), tone(250), atol=1e-4)
    kinds = [type(event).__name__ for event in joined.service.heard[-2:]]
    assert kinds == ["InputAudioBufferCommit", "ResponseCreate"]
    assert joined.service.said(events.ResponseCreate)[0].response.instructions == "Brief."
    assert joined.clock.slept == []  # at once


async def test_what_was_left_in_the_buffer_is_not_part_of_it(joined: Joined) -> None:
    await push_to_talk(joined)
    await joined.session.input_audio_buffer.append(tone(50))
    assert await joined.session.say(tone(200), rate_hz=24_000, respond=False) is None
    assert len(joined.service.said(events.InputAudioBufferClear)) == 1
    assert len(joined.service.said(events.ResponseCreate)) == 0


async def test_too_short_is_refused_in_the_services_words(joined: Joined) -> None:
    await push_to_talk(joined)
    with pytest.raises(ServiceError, match="buffer too small") as caught:
        await joined.session.say(tone(50), rate_hz=24_000)
    assert caught.value.code == "input_audio_buffer_commit_empty"
    assert "100 ms" in caught.value.__notes__[0]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
async def test_any_rate_in(ga: Joined, rate_hz: int) -> None:
    await push_to_talk(ga)
    audio = tone(1_000, rate_hz=rate_hz)
    await ga.session.say(audio, rate_hz=rate_hz, respond=False)
    heard = decode_pcm16(b"".join(appended(ga)))
    assert np.allclose(heard, resample(audio, from_rate_hz=rate_hz, to_rate_hz=24_000), atol=1e-4)
    assert {len(chunk) for chunk in appended(ga)[:-1]} == {4_800}


async def test_any_form_in(ga: Joined, tmp_path: Path) -> None:
    await push_to_talk(ga)
    path = tmp_path / "tone.wav"
    write_wav(path, tone(200, rate_hz=16_000), rate_hz=16_000)
    await ga.session.say(path, respond=False)
    await ga.session.say(str(path), respond=False)
    ints = (tone(200) * 32_767).astype(np.int16)
    await ga.session.say(np.stack([ints, ints], axis=1), rate_hz=24_000, respond=False)
    assert len(b"".join(appended(ga))) == 3 * 9_600
    assert ga.session.log.filter("input_audio_buffer.append").to_frame().audio_ms.sum() == 600


async def test_g711_in(joined: Joined) -> None:
    await push_to_talk(joined, input_format="g711_ulaw")
    await joined.session.say(tone(200), rate_hz=24_000, respond=False)
    assert [len(chunk) for chunk in appended(joined)] == [800, 800]
    heard = codec("audio/pcmu").decode(b"".join(appended(joined)))
    assert np.allclose(heard, resample(tone(200), from_rate_hz=24_000, to_rate_hz=8_000), atol=0.02)


@pytest.mark.parametrize(
    "audio, options, words",
    [
        *((np.zeros(24_000, dtype), {}, "without rate_hz") for dtype in ("float32", "float64", "int16")),
        (np.zeros((100, 7), np.float32), {"rate_hz": 24_000}, "shape"),
        (b"\x00\x00", {}, "bytes"),
    ],
)
async def test_what_is_no_audio(ga: Joined, audio: Any, options: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words) as caught:
        await ga.session.say(audio, **options)
    assert "rate_hz" not in words or "rate_hz=24_000" in caught.value.__notes__[0]
    await ga.settle()
    assert ga.service.heard == []


async def test_a_file_knows_its_rate(ga: Joined, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    write_wav(path, tone(200, rate_hz=16_000), rate_hz=16_000)
    with pytest.raises(AudioError, match="has 16000 Hz"):
        await ga.session.say(path, rate_hz=24_000)


async def test_append_takes_arrays_and_whole_samples(ga: Joined) -> None:
    await ga.session.input_audio_buffer.append(b"\x00\x40")
    await ga.session.input_audio_buffer.append(np.array([0.5], np.float32))
    with pytest.raises(AudioError, match="even"):
        await ga.session.input_audio_buffer.append(b"\x00")
    await ga.service.hears(events.InputAudioBufferAppend, times=2)
    assert appended(ga) == [b"\x00\x40", b"\x00\x40"]


# --- turn detection ---------------------------------------------------------------------------------------------------


async def listen(joined: Joined, *, after: int) -> None:
    """The service: commits the turn after so many chunks, and answers."""
    started = await joined.service.hears(events.InputAudioBufferAppend)
    assert started
    item_id = await joined.service.speech_started()
    await joined.service.hears(events.InputAudioBufferAppend, times=after)
    await joined.service.commit_turn(item_id)
    await joined.service.answer()


async def test_with_turn_detection_it_is_spoken_in_real_time(joined: Joined) -> None:
    listening = asyncio.create_task(listen(joined, after=5))
    start_s = joined.clock()
    response = await joined.session.say(tone(300), rate_hz=24_000, trailing_silence_ms=5_000)
    assert (await response).transcript == "Hello there."
    chunks = appended(joined)
    assert not any(b"".join(chunks[3:]))  # silence after the speech …
    assert 5 <= len(chunks) <= 8  # … and no more of it once the turn was committed
    assert joined.clock() - start_s == pytest.approx(len(chunks) / 10, abs=0.11)
    assert joined.session.conversation.items[-1].role == "assistant"
    await listening


@pytest.mark.parametrize(
    "detection, silence_ms",
    [(SERVER_VAD_DEFAULTS, 500), (ServerVad(silence_duration_ms=700), 1_000), (SemanticVad(eagerness="high"), 2_300)],
)
async def test_silence_enough_to_end_the_turn(ga: Joined, detection: Any, silence_ms: int) -> None:
    await ga.session.update(turn_detection=detection)
    await ga.session.say(tone(200), rate_hz=24_000, respond=False, paced=False)
    await ga.settle()
    sent_ms = len(b"".join(appended(ga))) / 48
    assert sent_ms == 200 + silence_ms
    assert ga.clock.slept == []


async def test_faster_than_real_time(ga: Joined) -> None:
    await ga.session.say(tone(1_000), rate_hz=24_000, respond=False, paced=4, trailing_silence_ms=0)
    assert sum(ga.clock.slept) == pytest.approx(0.25)


async def test_say_times_out_where_the_service_detects_no_speech(ga: Joined) -> None:
    with pytest.raises(RequestTimeout, match=r"no input_audio_buffer\.committed within 0 s") as caught:
        await ga.session.say(tone(200), rate_hz=24_000, paced=False, timeout_s=0)
    assert "detected no speech" in caught.value.__notes__[0]


async def test_the_service_decides_when_and_we_whether(joined: Joined) -> None:
    await joined.session.update(turn_detection={"create_response": False})

    async def commit_only() -> None:
        await joined.service.hears(events.InputAudioBufferAppend, times=4)
        await joined.service.commit_turn()

    committing = asyncio.create_task(commit_only())
    response = await joined.session.say(tone(200), rate_hz=24_000, instructions="Brief.")
    assert joined.service.said(events.ResponseCreate)[0].response.instructions == "Brief."
    await response
    await committing


async def test_settings_of_a_response_the_service_creates(ga: Joined) -> None:
    with pytest.raises(TypeError, match="takes no instructions"):
        await ga.session.say(tone(200), rate_hz=24_000, instructions="Brief.")


@pytest.mark.parametrize("late", [False, True], ids=["the last turn ends in time", "its end is still on its way"])
async def test_the_answer_to_the_last_of_two_turns(joined: Joined, late: bool) -> None:
    """A pause in the recording makes two turns; the first answer is interrupted by the second."""
    heard = 9 if late else 6  # of 4 chunks of speech and 5 of silence

    async def hear_two() -> None:
        service = joined.service
        await service.hears(events.InputAudioBufferAppend, times=2)
        await service.commit_turn(await service.speech_started())
        first = await service.begin()
        last = await service.speech_started() if late else ""
        await service.hears(events.InputAudioBufferAppend, times=heard)
        if late:
            await joined.settle()
        last = last or await service.speech_started()
        await service.finish(first, status="cancelled", reason="turn_detected")
        await service.commit_turn(last)
        await service.answer(text="Second answer.")

    hearing = asyncio.create_task(hear_two())
    response = await (await joined.session.say(tone(400), rate_hz=24_000))
    assert response.transcript == "Second answer."
    await hearing


async def test_a_transcription_session_gives_no_response(ga: Joined) -> None:
    await ga.service.say(
        events.SessionUpdated(session=type(ga.session.config)(type="transcription"))
    )  # as if it were one
    await ga.settle()
    with pytest.raises(LocalProtocolError, match="no responses"):
        await ga.session.say(tone(200), rate_hz=24_000)
