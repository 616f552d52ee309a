"""Calibration finds what a simulator hides, says what it cannot tell apart, and leaves the session as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.analysis.calibration import Calibration
from rtnb.errors import AudioError, RtnbError
from rtnb.protocol import ServerVad
from rtnb.simulator import Simulator
from rtnb.tuning.calibration import SETTINGS, calibrate
from rtnb.vad import VadConstants
from tests.client.peer import Peer
from tests.client.virtual import talking
from tests.tuning.clips import clips

Hidden = Mapping[str, Any]


async def _calibrated(**hidden: Any) -> tuple[Calibration, rtnb.Session]:
    with Simulator(latency="fast", voice="babble", vad_constants=hidden) as simulator:
        async with rtnb.connect(simulator, turn_detection=ServerVad(silence_duration_ms=640)) as session:
            return await calibrate(session, clips(), paced=False, progress=False), session


@pytest.mark.parametrize(
    "hidden",
    [
        {"hysteresis": 0.05, "min_speech_frames": 3},
        {"threshold_shift": 0.75, "silence_rounding": "down", "phase_ms": 8},
    ],
    ids=["hysteresis", "threshold map"],
)
async def test_hidden_constants_are_found(hidden: Hidden) -> None:
    found, session = await _calibrated(**hidden)
    want = VadConstants(**{name: value for name, value in hidden.items() if name != "phase_ms"})
    for name in ("hysteresis", "min_speech_frames", "silence_rounding", "threshold_slope", "threshold_shift"):
        assert getattr(want, name) in found.like[name], name
        if name in hidden:
            assert getattr(found.constants, name) == pytest.approx(getattr(want, name), abs=0.05), name
    assert found.phase_ms == hidden.get("phase_ms", 0)
    assert (found.start_f1, found.stop_f1, found.same_frame) == (1.0, 1.0, 1.0)
    assert found.start_f1_before < 0.8
    assert (found.anomalies, found.ignored) == ((), {})
    assert found.deployment == "127.0.0.1 rtnb-simulator"
    # And the session is as it was: its turn detection, no items, no responses.
    assert session.config.turn_detection.silence_duration_ms == 640
    assert session.config.turn_detection.create_response is True
    assert session.conversation.items == []
    assert len(session.log.filter("response.created")) == 0


async def test_constants_between_the_tried_ones_are_bracketed() -> None:
    found, _ = await _calibrated(phase_ms=14, hysteresis=0.12, threshold_shift=-0.6)
    assert found.phase_ms in (12, 16)
    assert min(found.like["hysteresis"]) <= 0.12 <= max(found.like["hysteresis"])
    assert min(found.like["threshold_shift"]) <= -0.6 <= max(found.like["threshold_shift"])
    assert min(found.start_f1, found.stop_f1) >= 0.85  # what a frame grid that is off by some ms leaves
    assert max(found.start_f1_before, found.stop_f1_before) < 0.75


async def test_a_service_that_ignores_its_configuration_is_found_out() -> None:
    found, _ = await _calibrated(ignores_settings=True, hysteresis=0.05)
    assert found.ignored == {"threshold": 0.5, "silence_duration_ms": 200, "prefix_padding_ms": 300}
    assert "silence_duration_ms is ignored: the service behaves as if it were always 200" in found.anomalies
    assert found.constants.hysteresis == pytest.approx(0.05)
    assert found.stop_f1 == 1.0
    assert "ignored" in repr(found)


@talking()
async def test_it_streams_in_real_time_and_refuses_what_it_cannot_identify(peer: Peer, session: rtnb.Session) -> None:
    start_s = asyncio.get_running_loop().time()
    settings = [replace(one, threshold=0.5) for one in SETTINGS[:2]]
    with pytest.raises(AudioError, match="sent 0 starts and stops: at least 10 are needed"):
        await calibrate(session, clips()[:1], settings=settings, progress=False)
    streamed_s = sum(2 * (0.8 + one.silence_duration_ms / 1000) + clips()[0].duration_ms / 1000 for one in settings)
    assert asyncio.get_running_loop().time() - start_s == pytest.approx(streamed_s, abs=0.1)


def _calibration() -> Calibration:
    scores = {"start_f1": 0.9, "stop_f1": 0.85, "same_frame": 0.8}
    before = {"start_f1_before": 0.7, "stop_f1_before": 0.6, "same_frame_before": 0.5}
    counts: Any = {"n_starts": 12, "n_stops": 11, "n_settings": 6, "audio_s": 60.0}
    found: Any = {"phase_ms": 8, "like": {"hysteresis": (0.05, 0.1)}, "ignored": {}, "anomalies": ("odd",)}
    constants = VadConstants(hysteresis=0.1)
    return Calibration(deployment="a host/gpt:1", constants=constants, **scores, **before, **counts, **found)


@talking()
async def test_without_recordings_nothing_is_sent(peer: Peer, session: rtnb.Session) -> None:
    with pytest.raises(AudioError, match="no recordings"):
        await calibrate(session, [])
    assert peer.heard == []


def test_a_calibration_is_kept_per_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTNB_CALIBRATIONS", str(tmp_path))
    found = _calibration()
    assert "F1 0.90 within ±96 ms, out of sample (0.70 before the fit; n=12)" in repr(found)
    assert "not identified: 0.05, 0.1 fit about as well" in repr(found)
    one = replace(found, start_f1=float("nan"))
    assert "not shown: one recording, at least 2 are needed" in repr(one)
    assert Calibration.stored(found.deployment) is None
    path = found.save()
    assert path == tmp_path / "a_host_gpt_1.json"
    assert Calibration.stored(found.deployment) == found
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(RtnbError, match="version 2; this rtnb reads 1"):
        Calibration.load(path)
    path.write_text("[]")
    with pytest.raises(RtnbError, match="no calibration"):
        Calibration.load(path)
    assert "Calibration of a host/gpt:1" in repr(found)
