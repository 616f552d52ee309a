"""Calls over real sockets, with aiortc in the place of the browser: `rtnb.simulator.webrtc` and `.service`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection
from aiortc.codecs.opus import OpusEncoder
from aiortc.rtp import RtpPacket
from scipy.signal import correlate

import rtnb
from rtnb.audio import decode_pcm16, encode_pcm16, resample
from rtnb.protocol import SessionConfig, events
from rtnb.simulator import Simulator
from rtnb.simulator.admission import RefusedError
from rtnb.simulator.classroom import Room
from rtnb.simulator.webrtc import BIT_RATE, QUICK, VISIBLE, Call, ServiceTrack, UserTrack
from tests.simulator.caller import Caller, calling, calls_path, post
from tests.simulator.plain import HANDSHAKE, fetch, gone
from tests.simulator.rig import spoken

AZURE, OPENAI, PREVIEW = "/openai/v1/realtime/calls", "/v1/realtime/calls", "/v1/realtimertc?model=m"
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen"  # no comma: no pause
TURN = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """Says little."""
    with Simulator(latency="fast", voice="babble", scenario={"steps": [{"say": "Yes, of course."}]}) as simulator:
        yield simulator


async def received(caller: Caller) -> int:
    """How many frames of the service's voice have come, also those that the caller has not decoded yet."""
    stats = await caller.peer.getReceivers()[0].getStats()
    return sum(one.packetsReceived for one in stats.values() if one.type == "inbound-rtp")


async def decoded(caller: Caller, n_frames: int) -> None:
    """Return once so many frames are decoded."""
    async with asyncio.timeout(10):
        while len(caller.heard) < n_frames:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def heard_until_now(caller: Caller) -> None:
    """All that has come is decoded, and some more: the jitter buffer keeps the last four frames back."""
    await decoded(caller, await received(caller) + 10)


def likeness(heard: np.ndarray[Any, Any], said: np.ndarray[Any, Any]) -> float:
    """Highest normalised correlation of two recordings at one rate, over all shifts."""
    product = correlate(heard, said, "valid")
    best = int(np.argmax(product))
    return float(product[best] / np.linalg.norm(heard[best : best + len(said)]) / np.linalg.norm(said))


async def recording(caller: Caller, item_id: str) -> np.ndarray[Any, Any]:
    """An item's sound as the service keeps it."""
    n_before = len(caller.types)
    caller.send(events.ConversationItemRetrieve(item_id=item_id))
    kept = await caller.until("conversation.item.retrieved", after=n_before)
    return decode_pcm16(kept.item.content[0].audio)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_spoken_turn_is_answered_aloud(sim: Simulator, dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.webrtc.STALLED_S", 60.0)  # a busy machine is no silence in the middle of a word
    async with calling(sim, dialect=dialect, channel="oai-events" if dialect == "ga" else "realtime-channel") as caller:
        await caller.until("session.created")
        patient = rtnb.ServerVad(silence_duration_ms=700)  # a busy machine stutters, and is heard to
        caller.send(events.SessionUpdate(session=SessionConfig.of(turn_detection=patient)))
        await caller.until("session.updated")
        said = spoken("hello", silence_ms=0)
        caller.microphone.say(said)
        stopped = await caller.until("output_audio_buffer.stopped")
        order = [t for t in caller.types if not t.endswith(("delta", "rate_limits.updated"))]
        assert order[0] == "session.created"
        assert [t for t in order if t in TURN] == TURN
        assert order.index(TURN[-1]) < order.index("response.created") < order.index("output_audio_buffer.started")
        assert not [t for t in caller.types if t.endswith("audio.delta")]
        assert stopped.response_id == next(e for e in caller.events if e.type == "response.done").response.id

        user_item, reply_item = caller.client.state.order
        heard_there = await recording(caller, user_item)
        core = said[24 * 300 :]
        assert likeness(heard_there, core) >= 0.95
        reply = resample(await recording(caller, reply_item), from_rate_hz=24_000, to_rate_hz=48_000)
        await heard_until_now(caller)
        sound = caller.sound()
        assert likeness(sound, reply) >= 0.9
        loud = np.abs(sound) > 0.01
        assert loud.sum() == pytest.approx((np.abs(reply) > 0.01).sum(), rel=0.2)
        assert np.abs(sound[: 48 * 500]).max() < 0.01  # nothing before it
        assert set(np.diff(caller.pts)) == {960}  # a frame every 20 ms, none missing
    await gone(sim)


async def test_silence_that_is_not_encoded_again_sounds_like_silence_that_is() -> None:
    """Speech, silence, speech: the packets of the track are heard like those of an encoder that encodes everything."""
    speech = spoken("hello", silence_ms=0, lead_ms=0)[: 24 * 300]
    frames = (
        np.concatenate([speech, np.zeros(24 * 900), speech, np.zeros(24 * 200)]).astype(np.float32).reshape(-1, 480)
    )
    track, waiting = ServiceTrack(), [encode_pcm16(frame) for frame in frames]
    reference = av.CodecContext.create("libopus", "w")
    reference.format, reference.layout, reference.sample_rate = "s16", "mono", 24_000
    reference.bit_rate, reference.options = BIT_RATE, QUICK
    track.play = lambda _: waiting.pop(0)
    heard = []
    for packets in (
        [bytes(await track.recv()) for _ in frames],
        [bytes(reference.encode(_frame(pcm, i))[0]) for i, pcm in enumerate(map(encode_pcm16, frames))],
    ):
        decoder = av.CodecContext.create("libopus", "r")
        decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", 48_000
        heard.append(np.concatenate([f.to_ndarray()[0] for data in packets for f in decoder.decode(av.Packet(data))]))
    second = slice(48 * 1150, 48 * 1600)  # the speech after the silence, with some of the silence around it
    said = resample(speech, from_rate_hz=24_000, to_rate_hz=48_000)
    mine, theirs = (likeness(sound[second].astype(float), said) for sound in heard)
    assert mine > theirs - 0.01
    assert (heard[0][: second.start] == heard[1][: second.start]).all()
    assert not heard[0][48 * 900 : second.start].any()
    assert np.abs(heard[0][second]).max() < 1.1 * np.abs(heard[1][second]).max()  # no click


def _frame(pcm: bytes, number: int) -> Any:
    frame = av.AudioFrame(format="s16", layout="mono", samples=480)
    frame.planes[0].update(pcm)
    frame.sample_rate, frame.pts = 24_000, 480 * number
    return frame


async def test_speaking_up_silences_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.webrtc.STALLED_S", 60.0)
    with Simulator(latency="fast", voice="babble", scenario={"steps": [{"say": LONG}]}) as sim:
        async with calling(sim) as caller:
            await caller.until("session.created")
            unanswered = rtnb.ServerVad(create_response=False)  # what is heard afterwards is no other reply
            caller.send(events.SessionUpdate(session=SessionConfig.of(turn_detection=unanswered)))
            await caller.until("session.updated")
            caller.send(events.ResponseCreate())
            long = await caller.until("output_audio_buffer.started")
            caller.microphone.say(spoken("stop", lead_ms=600, silence_ms=0))
            await caller.until("input_audio_buffer.speech_started")
            n_until = await received(caller)
            cut = await caller.until("conversation.item.truncated")
            cleared = await caller.until("output_audio_buffer.cleared")
            assert cleared.response_id == long.response_id
            assert caller.events.index(cleared) < caller.events.index(cut)
            await decoded(caller, n_until + 25)
        loud = [i for i, frame in enumerate(caller.heard) if np.abs(frame).max() > 0.01]
        assert loud[-1] - n_until < 10  # silent within 200 ms
        assert 20 * (loud[-1] - loud[0] + 1) == pytest.approx(cut.audio_end_ms, abs=100)


async def test_the_key_brings_the_session_and_a_caller_may_only_listen(sim: Simulator) -> None:
    async with calling(sim, session={"instructions": "Be brief."}, mic=False) as caller:
        created = await caller.until("session.created")
        assert created.session.instructions == "Be brief."
        caller.send(events.SessionUpdate(session=SessionConfig.of(instructions="x" * 20_000)))
        await caller.until("session.updated")
        caller.send(events.ResponseCreate())
        await caller.until("output_audio_buffer.stopped")
        await heard_until_now(caller)
        assert np.abs(caller.sound()).max() > 0.05
    await gone(sim)


# --- beside a call ----------------------------------------------------------------------------------------------------


async def read(ws: aiohttp.ClientWebSocketResponse, *types: str) -> list[str]:
    """What a sideband hears, to the first of these types."""
    seen: list[str] = []
    while not seen or seen[-1] not in types:
        seen.append((await ws.receive_json(timeout=10))["type"])
    return seen


async def test_a_sideband_hears_what_the_filter_hides_and_may_speak(sim: Simulator) -> None:
    async with (
        calling(sim, path=f"{AZURE}?webrtcfilter=on", mic=False) as caller,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{sim.url}/openai/v1/realtime?call_id={caller.call_id}", headers={"api-key": sim.key}) as ws,
    ):
        assert await read(ws, "session.created") == ["session.created"]
        await ws.send_json({"type": "session.update", "session": {"type": "realtime", "instructions": "x"}})
        await ws.send_json({"type": "nonsense"})
        assert await read(ws, "error") == ["session.updated", "error"]
        await ws.send_json({"type": "response.create"})
        beside = await read(ws, "output_audio_buffer.stopped")
        await caller.until("output_audio_buffer.stopped")
        assert {"response.created", "response.done", "output_audio_buffer.started"} < set(beside)
        assert "response.output_audio.delta" not in beside
        assert caller.types == [t for t in beside if t in VISIBLE]
        await caller.close()
        assert (await ws.receive(timeout=10)).type == aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1000
    await gone(sim)


async def test_hanging_up(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.service.GOODBYE_S", 10.0)  # the answer waits so long for the end of the call
    async with calling(sim, path=OPENAI, mic=False) as caller:
        await caller.until("session.created")
        ephemeral = (await sim.ephemeral_key()).reveal()
        for path, key, wanted in (
            (f"{OPENAI}/rtc_no/hangup", sim.key, 404),
            (f"{OPENAI}/{caller.call_id}/hangup", ephemeral, 401),
            (f"{OPENAI}/{caller.call_id}/hangup", "wrong", 401),
            (f"{OPENAI}/{caller.call_id}/hangup", sim.key, 200),
            (f"{OPENAI}/{caller.call_id}/hangup", sim.key, 404),
        ):
            assert (await post(sim, path, key=key)).status == wanted
        async with asyncio.timeout(10):
            await caller.closed.wait()
        assert sim.n_sessions == 0
        url, headers = f"{sim.url}/openai/v1/realtime?call_id={caller.call_id}", {"api-key": sim.key}
        beside = await fetch(url, "GET", headers=HANDSHAKE | headers)
        assert beside.status == 404


def with_session(sdp: str, session: str, **file: str) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("sdp", sdp, **file)
    form.add_field("session", session, content_type="application/json")
    return form


@pytest.mark.parametrize("file", [{}, {"filename": "offer.sdp"}], ids=["text", "file"])
async def test_an_offer_with_a_session_of_its_own(sim: Simulator, file: dict[str, str]) -> None:
    caller, multipart = Caller(mic=False), {"Content-Type": ""}
    try:
        form = with_session(await caller.offer(), '{"type": "realtime", "instructions": "Mine."}', **file)
        answer = await post(sim, OPENAI, key=sim.key, data=form, headers=multipart)
        assert answer.status == 201
        await caller.accept(answer.text)
        assert (await caller.until("session.created")).session.instructions == "Mine."
    finally:
        await caller.close()
    ephemeral = (await sim.ephemeral_key()).reveal()
    for session, key, status in (
        ('{"type": "realtime", "voice": "x"}', sim.key, 400),
        ("{", sim.key, 400),
        ("{}", ephemeral, 401),
    ):
        form = with_session("v=0", session)
        assert (await post(sim, OPENAI, key=key, data=form, headers=multipart)).status == status


async def test_when_the_simulator_stops_the_call_ends(sim: Simulator) -> None:
    async with calling(sim, mic=False) as caller:
        await caller.until("session.created")
        await sim.astop()
        assert await asyncio.wait_for(caller.closed.wait(), 10)


# --- who may call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [AZURE, OPENAI, PREVIEW])
async def test_an_offer_needs_the_right_key(sim: Simulator, path: str) -> None:
    sim.dialect = "ga" if path == PREVIEW else "preview"
    foreign = (await sim.ephemeral_key()).reveal()
    for key in ("secret", "ek_secret", sim.key, foreign):
        answer = await post(sim, path, key=key, data="v=0")
        assert (answer.status, key in answer.text) == (401, False)
        assert answer.body["error"]["code"] == ("invalid_api_key" if path == OPENAI else "401")
    assert sim.n_sessions == 0


async def test_a_key_of_the_preview_opens_one_call_and_one_of_ga_several(sim: Simulator) -> None:
    for dialect, again in (("preview", 401), ("ga", 201)):
        sim.dialect = dialect  # type: ignore[assignment]
        key, caller = (await sim.ephemeral_key()).reveal(), Caller(dialect=dialect)
        offer = await caller.offer()
        answers = [await post(sim, calls_path(dialect), key=key, data=data) for data in ("v=0\r\n", offer, offer)]
        assert [answer.status for answer in answers] == [400, 201, again]  # it is not spent by a wrong offer
        assert "was used" in answers[2].text or again == 201
        await caller.close()


SILENT = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"


@pytest.mark.parametrize(
    "path, body, kind, status, words",
    [
        (AZURE, "hello", "application/sdp", 400, "begins with v=0"),
        (AZURE, "v=0", "application/json", 400, "Content-Type is 'application/json'"),
        (AZURE, b"v=0\xff", "application/sdp", 400, "body is"),
        (AZURE, "v=0\r\nm=audio", "application/sdp", 400, "cannot be read"),
        (AZURE, SILENT, "application/sdp", 400, "no audio section"),
        (AZURE, f"{SILENT}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=rtpmap:0 PCMU/8000\r\n", "application/sdp", 400, "read"),
        (f"{AZURE}?api-version=1", "v=0", "application/sdp", 400, "api-version query parameter is not allowed"),
        ("/v1/realtimertc", "v=0", "application/sdp", 404, "deployment"),
    ],
)
async def test_a_wrong_offer(sim: Simulator, path: str, body: Any, kind: str, status: int, words: str) -> None:
    sim.dialect = "preview" if path.startswith("/v1/realtimertc") else "ga"
    key = (await sim.ephemeral_key()).reveal()
    answer = await post(sim, path, key=key, data=body, headers={"Content-Type": kind})
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert sim.n_sessions == 0


async def test_who_takes_no_audio_is_not_called() -> None:
    caller = Caller()
    caller.peer.getTransceivers()[0].direction = "sendonly"
    with pytest.raises(RefusedError, match="it takes no audio"):
        await Call.answer(await caller.offer())
    await caller.close()


async def test_a_damaged_offer_is_answered_or_refused_and_leaves_nothing() -> None:
    caller, chance = Caller(), random.Random(1)
    lines = (await caller.offer()).split("\r\n")
    outcomes = set()
    for _ in range(60):
        damaged = list(lines)
        for _ in range(3):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 1)] = chance.choice([[], [chance.choice(lines)], [damaged[at][:9]]])
        try:
            call = await Call.answer("\r\n".join(damaged))
            await call.aclose()
            outcomes.add("answered")
        except RefusedError:
            outcomes.add("refused")
    await caller.close()
    assert outcomes == {"answered", "refused"}


async def test_what_to_do_where_nobody_can_call(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    key = (await sim.ephemeral_key()).reveal()

    async def why() -> str:
        answer = await post(sim, AZURE, key=key, data="v=0")
        assert answer.status == 503
        return answer.text

    with monkeypatch.context() as patch:
        patch.setattr("ifaddr.get_adapters", list)
        body = await why()
        assert "loopback" in body
        assert "talk over WebSocket" in body

    class Newer(RTCPeerConnection):
        def addTransceiver(self, *given: Any, **options: Any) -> Any:
            transceiver = super().addTransceiver(*given, **options)
            del transceiver.receiver._RTCRtpReceiver__jitter_buffer
            return transceiver

    with monkeypatch.context() as patch:
        patch.setattr("rtnb.simulator.webrtc.RTCPeerConnection", Newer)
        body = await why()
        assert "aiortc keeps its jitter buffer elsewhere" in body
        assert "pip install" in body
    monkeypatch.setitem(sys.modules, "aiortc", None)
    assert 'pip install \\"rtnb[sim]\\"' in await why()


def others(threads: set[threading.Thread]) -> set[str]:
    """The threads that have come since, without those of the test's own loop."""
    came = set(threading.enumerate()) - threads
    return {thread.name for thread in came if not thread.name.startswith("asyncio_")}


async def test_nothing_stays_behind() -> None:
    threads, files = set(threading.enumerate()), os.listdir("/proc/self/fd")
    with Simulator(latency="fast", voice="babble") as simulator:
        async with calling(simulator) as caller:
            await caller.until("session.created")
        await gone(simulator)
        assert "audio-decoder" not in others(threads)
    async with asyncio.timeout(10):
        while others(threads):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= len(files)


# --- the track --------------------------------------------------------------------------------------------------------


def packets(n: int, *, sequence: int = 65_530, timestamp: int = 2**32 - 9_600) -> list[RtpPacket]:
    """So many packets of a tone; their numbers wrap around."""
    encoder, out = OpusEncoder(), []
    for i in range(n):
        at = np.arange(960 * i, 960 * (i + 1))
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update((8000 * np.sin(2 * np.pi * 440 / 48_000 * at)).astype("<i2").tobytes())
        frame.sample_rate, frame.pts = 48_000, 960 * i
        (payload,), _ = encoder.encode(frame)
        packet = RtpPacket(sequence_number=(sequence + i) % 65_536, timestamp=(timestamp + 960 * i) % 2**32)
        packet._data = payload  # type: ignore[attr-defined]
        out.append(packet)
    return out


async def test_the_ear_hears_every_packet_at_once_and_what_is_missing_as_silence() -> None:
    pieces: list[bytes] = []
    track = UserTrack(pieces.append)
    sent = packets(50)
    lost, late, damaged = {10, 11, 30}, 30, 20
    for i, packet in enumerate(sent):
        if i == damaged:
            packet._data = b"\xff" * 3  # type: ignore[attr-defined]
        if i in lost:
            continue
        assert track.add(packet) == (False, None)
        if i != damaged:
            assert sum(map(len, pieces)) >= 48 * (20 * i + 20 - 5)  # the resampler's lag
    track.add(sent[late])
    heard = decode_pcm16(b"".join(pieces))
    assert len(heard) == pytest.approx(24 * 1000, abs=24 * 5)
    level = np.abs(heard[: 480 * 49].reshape(-1, 480)).max(axis=1)
    quiet = {i for i in range(49) if level[i] < 0.1}
    assert quiet <= {10, 11, 20, 30}
    assert {11, 20} <= quiet | {20}


async def test_a_track_that_falls_silent_without_a_word_is_heard_as_silence() -> None:
    pieces: list[bytes] = []
    track = UserTrack(pieces.append)
    now = [0.0]
    track._now = lambda: now[0]
    track.tick()
    for packet in packets(5):
        track.add(packet)
    n_before = sum(map(len, pieces))
    for at in (0.0, 0.4):  # the machine is busy: what comes late still comes
        now[0] = at
        track.tick()
        assert sum(map(len, pieces)) == n_before
    for _ in range(50):
        now[0] += 0.02
        track.tick()
    assert sum(map(len, pieces)) - n_before == pytest.approx(1400 * 48, abs=10 * 48)


async def test_a_call_takes_a_place_in_its_class() -> None:
    room = Room(students=2, sessions_each=1)
    with Simulator(latency="fast", voice="babble", room=room) as simulator:
        async with calling(simulator, mic=False) as caller:
            await caller.until("session.created")
            offer, key = await caller.offer(), (await simulator.ephemeral_key()).reveal()
            answer = await post(simulator, AZURE, key=key, data=offer)
            assert (answer.status, "teacher has 1 sessions open" in answer.text) == (429, True)
        await gone(simulator)
        async with calling(simulator, mic=False) as caller:  # a place that was left is free
            await caller.until("session.created")


# --- the sample of the how-to -----------------------------------------------------------------------------------------

VERSION = "api-version=2025-04-01-preview"
DEPLOYMENT = "gpt-4o-mini-realtime-preview"
SAMPLE = "You are a helpful AI assistant responding in natural, engaging language."


@pytest.mark.parametrize("path", [f"/openai/realtimeapi/sessions?{VERSION}", f"/openai/realtime/sessions?{VERSION}"])
async def test_the_sample_page_of_the_preview_gets_a_key_calls_and_updates(sim: Simulator, path: str) -> None:
    """Azure's WebRTC how-to: POST model and voice, take `id` and `client_secret.value`, POST the offer, update."""
    asked = {"model": DEPLOYMENT, "voice": "verse"}
    made = (await fetch(sim.url + path, headers={"api-key": sim.key}, json=asked)).body
    assert made["id"].startswith("sess_")
    assert (made["object"], made["model"], made["voice"]) == ("realtime.session", DEPLOYMENT, "verse")
    key = made["client_secret"]
    assert key["value"].startswith("ek_")
    assert 0 < key["expires_at"] - time.time() <= 60
    assert 3500 < made["expires_at"] - time.time() <= 3600
    where = f"/v1/realtimertc?model={DEPLOYMENT}"
    async with calling(sim, path=where, key=key["value"], dialect="preview") as caller:
        assert (await caller.until("session.created")).session.voice == "verse"
        caller.send(events.SessionUpdate(session=SessionConfig(instructions=SAMPLE)))
        assert (await caller.until("session.updated")).session.instructions == SAMPLE
