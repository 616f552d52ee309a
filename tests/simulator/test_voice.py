"""The simulator's voices, with the real espeak-ng process and real sound."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from rtnb.audio import RATE_HZ
from rtnb.errors import AudioError
from rtnb.simulator.speech import Speech
from rtnb.simulator.voice import VOICES, BabbleVoice, EspeakVoice, Voice, open_voice
from rtnb.vad import speech_probabilities

TEXT = "Hello! How can I help you today? The weather in Stockholm is sunny, with a light breeze from the west."


def needs_espeak() -> None:
    pytest.importorskip("espeakng_loader", reason='espeakng-loader is not installed: pip install "rtnb[sim]"')


@pytest.fixture
async def espeak() -> AsyncIterator[EspeakVoice]:
    needs_espeak()
    async with contextlib.aclosing(EspeakVoice()) as voice:
        yield voice


@pytest.fixture(params=["espeak", "babble"])
async def voice(request: pytest.FixtureRequest) -> AsyncIterator[Voice]:
    if request.param == "espeak":
        needs_espeak()
    async with contextlib.aclosing(await open_voice(request.param)) as voice:
        yield voice


def process_of(voice: EspeakVoice) -> asyncio.subprocess.Process:
    process: asyncio.subprocess.Process = voice._process
    return process


def rms(speech: Speech) -> float:
    return float(np.sqrt(np.mean(speech.audio**2)))


def pitch_hz(audio: np.ndarray) -> float:
    """Median of the autocorrelation's first peak over voiced frames of 43 ms."""
    found = []
    for frame in np.lib.stride_tricks.sliding_window_view(audio, 1024)[::1024]:
        if np.sqrt(np.mean(frame**2)) < 0.03:
            continue
        ahead = np.correlate(frame, frame, "full")[1023:]
        low, high = RATE_HZ // 400, RATE_HZ // 60
        lag = low + int(np.argmax(ahead[low:high]))
        if ahead[lag] > 0.4 * ahead[0]:
            found.append(RATE_HZ / lag)
    return float(np.median(found))


async def test_speech_is_speech_with_its_words(voice: Voice) -> None:
    speech = await voice.speak(TEXT)
    assert speech.text == TEXT
    assert speech.audio.dtype == np.float32
    assert speech.audio.ndim == 1
    assert 0.02 < rms(speech) < 0.3
    assert np.max(np.abs(speech.audio)) < 1
    assert 4000 < speech.duration_ms < 9000
    assert speech.words[-1].stop_ms <= speech.duration_ms
    assert [word.text for word in speech.words[:4]] == ["Hello", "!", " How", " can"]
    assert len({word.start_ms for word in speech.words if word.text.strip(" .,!?")}) == len(TEXT.split())


async def test_turn_detection_hears_speech_in_it(voice: Voice) -> None:
    for name in VOICES:
        speech = await voice.speak("How can I help you today?", voice=name)
        assert np.mean(speech_probabilities(speech.audio, rate_hz=RATE_HZ) > 0.5) > 0.5, name


async def test_word_times_are_where_the_sound_is(espeak: EspeakVoice) -> None:
    speech = await espeak.speak("Hello! How are you?")
    pause = speech.words[1]
    assert pause.text == "!"
    assert pause.stop_ms - pause.start_ms > 100
    silence = speech.audio[(pause.start_ms + 20) * 24 : (pause.stop_ms - 20) * 24]
    assert np.sqrt(np.mean(silence**2)) < 0.01 < rms(speech)


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.8, 1.25, 1.5])
async def test_duration_goes_as_one_over_speed(voice: Voice, speed: float) -> None:
    normal, changed = await voice.speak(TEXT), await voice.speak(TEXT, speed=speed)
    assert changed.duration_ms * speed == pytest.approx(normal.duration_ms, rel=0.15)
    assert changed.text == TEXT
    assert rms(changed) > 0.02
    place = next(i for i, word in enumerate(normal.words) if word.text == " Stockholm")
    assert changed.words[place].start_ms * speed == pytest.approx(normal.words[place].start_ms, rel=0.2)


async def test_slow_speech_keeps_its_pitch(espeak: EspeakVoice) -> None:
    normal, slow = await espeak.speak(TEXT), await espeak.speak(TEXT, speed=0.25)
    assert pitch_hz(slow.audio) == pytest.approx(pitch_hz(normal.audio), rel=0.08)


@pytest.mark.parametrize("speed", [0.2, 1.6, float("nan")])
async def test_speed_out_of_range_is_refused_with_the_range(voice: Voice, speed: float) -> None:
    with pytest.raises(AudioError, match=r"0\.25 to 1\.5"):
        await voice.speak("Hello", speed=speed)


async def test_the_ten_voices_have_ten_pitches(espeak: EspeakVoice) -> None:
    pitches = {name: pitch_hz((await espeak.speak(TEXT, voice=name)).audio) for name in VOICES}
    ordered = sorted(pitches.values())
    assert all(high / low > 1.06 for low, high in itertools.pairwise(ordered)), pitches


async def test_babble_voices_differ_and_the_same_seed_is_the_same_sound() -> None:
    one, again, other = BabbleVoice(seed=1), BabbleVoice(seed=1), BabbleVoice(seed=2)
    alloy = await one.speak(TEXT)
    assert np.array_equal(alloy.audio, (await again.speak(TEXT)).audio)
    assert not np.array_equal(alloy.audio, (await other.speak(TEXT)).audio)
    high, low = [pitch_hz((await one.speak(TEXT, voice=name)).audio) for name in ("coral", "ash")]
    assert high > 1.5 * low


@pytest.mark.parametrize(
    "text",
    [
        "<speak>not <break time='3s'/> a command</speak>",
        "tabs\tand \x01 50P control \x00 characters \x7f",
        "[[h@l'oU]] &amp; {braces}",
        "lone surrogate \ud800 and emoji 👩‍👩‍👧",
        "日本語のテキスト、です。",
        "x" * 1500,
        "...!?",
        "   \n ",
    ],
)
async def test_any_text_is_spoken_as_it_stands(voice: Voice, text: str) -> None:
    speech = await voice.speak(text)
    assert speech.text == text


async def test_markup_is_read_aloud(espeak: EspeakVoice) -> None:
    plain, markup = await espeak.speak("one two"), await espeak.speak('one <break time="3s"/> two')
    assert plain.duration_ms + 500 < markup.duration_ms
    quiet = await espeak.speak("one \x0110A two three four")
    loud = await espeak.speak("one two three four")
    assert rms(quiet) == pytest.approx(rms(loud), rel=0.3)  # \x01 10 A would set the amplitude to a tenth


async def test_empty_text_is_no_speech(voice: Voice) -> None:
    speech = await voice.speak("")
    assert (len(speech.audio), speech.words) == (0, ())


async def test_long_text_lets_the_loop_breathe(voice: Voice) -> None:
    text = "".join(f"This is sentence {number} of many, and it says nothing new. " for number in range(40))
    turns = 0
    speaking = asyncio.create_task(voice.speak(text))
    while not speaking.done():
        turns += 1
        await asyncio.sleep(0)
    speech = await speaking
    assert speech.text == text
    assert turns >= 10
    starts = [word.start_ms for word in speech.words]
    assert starts == sorted(starts)
    assert starts[-3] > 0.95 * speech.duration_ms


@pytest.mark.parametrize(
    "language, text",
    [("ar", "مرحبا بك يا صديقي"), ("tr", "Merhaba, nasıl yardımcı olabilirim?"), ("sv", "Hur mår du?")],
)
async def test_languages(espeak: EspeakVoice, language: str, text: str) -> None:
    speech = await espeak.speak(text, language=language, voice="cedar")
    assert speech.text == text
    assert 500 < speech.duration_ms < 5000
    assert rms(speech) > 0.02


async def test_an_unknown_language_is_refused_and_the_next_word_works(espeak: EspeakVoice) -> None:
    with pytest.raises(AudioError, match="'tlh'"):
        await espeak.speak("nuqneH", language="tlh")
    assert (await espeak.speak("Hello")).duration_ms > 200


async def test_the_same_words_are_made_once(espeak: EspeakVoice) -> None:
    first, *others = await asyncio.gather(*(espeak.speak("The same words.") for _ in range(50)))
    assert all(speech.audio is first.audio for speech in others)
    assert (await espeak.speak("The same words.")).audio is first.audio
    assert (await espeak.speak("The same words.", voice="ash")).audio is not first.audio


async def test_the_memory_is_bounded(espeak: EspeakVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.voice.CACHE_BYTES", 300_000)
    speeches = [await espeak.speak(f"Number {i}.") for i in range(12)]
    again = [await espeak.speak(f"Number {i}.") for i in range(11, -1, -1)]
    kept = [speech for speech in again if any(speech is one for one in speeches)]
    assert 0 < len(kept) < 12
    assert kept[0] is speeches[-1]
    assert sum(speech.audio.nbytes for speech in kept) <= 300_000


async def test_giving_up_leaves_the_pipe_in_order(espeak: EspeakVoice) -> None:
    await espeak.start()
    for yields in range(12):
        speaking = asyncio.create_task(espeak.speak(f"This was given up after {yields} turns of the loop, was it not?"))
        for _ in range(yields):
            await asyncio.sleep(0)
        speaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await speaking
        text = f"Number {yields}."
        assert (await espeak.speak(text)).text == text
    assert 400 < (await espeak.speak("Hello there.")).duration_ms < 1800
    assert process_of(espeak).returncode is None


async def test_one_giving_up_does_not_take_it_from_the_others(espeak: EspeakVoice) -> None:
    first = asyncio.create_task(espeak.speak("Said for two."))
    second = asyncio.create_task(espeak.speak("Said for two."))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).text == "Said for two."


@pytest.mark.parametrize(
    "speaking",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold a process")),
    ],
)
async def test_a_killed_worker_is_replaced_also_in_the_middle_of_a_word(espeak: EspeakVoice, speaking: bool) -> None:
    await espeak.start()
    process = process_of(espeak)
    if speaking:
        process.send_signal(signal.SIGSTOP)
    task = asyncio.create_task(espeak.speak("In the middle of this."))
    for _ in range(10 * speaking):  # turns of the loop: the request is in the pipe
        await asyncio.sleep(0)
    assert espeak._turn.locked() == speaking
    process.kill()
    assert (await task).text == "In the middle of this."
    assert espeak.name.startswith("espeak-ng 1.")
    assert process_of(espeak).pid != process.pid


async def test_two_deaths_are_an_error_with_the_reason(espeak: EspeakVoice) -> None:
    await espeak.start()
    library, espeak._library = espeak._library, "gone.so"
    process_of(espeak).kill()
    with pytest.raises(AudioError, match=r"gone\.so"):
        await espeak.speak("Nobody is there.")
    espeak._library = library
    await espeak.speak("Back again.")
    assert espeak.name.startswith("espeak-ng 1.")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal for a process of its own on Windows")
async def test_ctrl_c_belongs_to_the_kernel(espeak: EspeakVoice) -> None:
    await espeak.start()
    process = process_of(espeak)
    process.send_signal(signal.SIGINT)
    assert (await espeak.speak("Still here.")).text == "Still here."
    assert process_of(espeak) is process
    assert process.returncode is None


async def test_closing_leaves_no_process_and_can_be_repeated(
    espeak: EspeakVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtnb.simulator.voice.GOODBYE_S", 30.0)  # it ends by itself, however busy the machine is
    await espeak.speak("Hello.")
    process = process_of(espeak)
    speaking = asyncio.create_task(espeak.speak("Cut off by closing the voice."))
    await asyncio.sleep(0)
    await espeak.aclose()
    await espeak.aclose()
    assert process.returncode == 0
    await asyncio.gather(speaking, return_exceptions=True)
    with pytest.raises(AudioError, match="closed"):
        await espeak.speak("Too late.")


async def test_a_long_path_to_the_data_works(tmp_path: Path, espeak: EspeakVoice) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 60)
    deep.mkdir(parents=True)
    link = deep / "espeak-ng-data"
    try:
        os.symlink(espeak._data, link)
    except OSError:
        pytest.skip("no symbolic links here: the worker says so instead")
    espeak._data = str(link)
    assert (await espeak.speak("A long way.")).duration_ms > 300


async def test_missing_data_is_an_error_and_no_exit(tmp_path: Path, espeak: EspeakVoice) -> None:
    espeak._data = str(tmp_path)
    with pytest.raises(AudioError, match="does not start with its data"):
        await espeak.start()


async def test_open_voice_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = await open_voice("babble")
    assert voice.name == "babble"
    await voice.aclose()
    with pytest.raises(AudioError, match="'robot'"):
        await open_voice("robot")  # type: ignore[arg-type]
    monkeypatch.setattr("rtnb.simulator.voice.find_espeak", lambda: ("gone.so", ""))
    voice = await open_voice("auto")
    assert voice.name.startswith("babble (espeak-ng does not speak: gone.so")
    with pytest.raises(AudioError, match=r"gone\.so"):
        await open_voice("espeak")
