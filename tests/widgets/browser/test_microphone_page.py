"""`microphone.js` in Chromium against `Microphone` in this process: what is heard, refused, and left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.audio import read_wav, resample
from rtnb.errors import WidgetError
from rtnb.widgets import Microphone
from tests.browser.chromium import flags
from tests.widgets.browser.microphone_page import likeness, shown_in, write_voice
from tests.widgets.browser.stalls import PAGE, Heart, beats, stalled_ms
from tests.widgets.page import eventually

RAW = {"echo_cancellation": False, "noise_suppression": False, "auto_gain_control": False}


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of a voice, as the file of Chromium's fake device: 48 kHz."""
    return write_voice(tmp_path_factory.mktemp("voice") / "voice.wav")


@pytest.fixture
def mic() -> Any:
    one = Microphone(**RAW)
    yield one
    one.close()


async def test_a_clip_is_what_was_said_and_then_the_track_ends(launch: Any, voice: Path, tmp_path: Path) -> None:
    mic = rtnb.Microphone(**RAW)
    async with shown_in(await launch(f"--use-file-for-fake-audio-capture={voice}")) as show:
        tab = await show(mic)
        await tab.run(PAGE)
        heart = Heart()
        clip = await mic.record(2, path=tmp_path / "clip.wav")
        still_ms = stalled_ms(heart.stop(), await beats(tab.page))
        assert (clip.dtype, clip.shape) == (np.float32, (48_000,))
        assert likeness(clip[12_000:], voice) > 0.99
        assert read_wav(tmp_path / "clip.wav")[0].shape == (48_000,)
        await tab.until("live() === 0")
        assert await tab.run("tracks.length") == 1
        counts = mic.counts
        assert counts["captured"] == counts["sent"] + counts["unused"] >= 100
        assert counts["lost"] == counts["dropped"] == 0
        assert 20 * counts["late"] <= still_ms, "late only while the page or the loop stood still"
        assert mic.devices[0].startswith("Fake")
        assert mic.device_rate_hz in (44_100, 48_000)
        with pytest.raises(ValueError, match="seconds is 0"):
            await mic.record(0)
    mic.close()


async def test_any_rate_of_a_device_becomes_24_khz_as_in_python(browser: Any, mic: Microphone) -> None:
    async with shown_in(browser) as show:
        tab = await show(mic)
        for rate_hz in (16_000, 24_000, 44_100, 48_000, 96_000):
            noise = np.random.default_rng(rate_hz).uniform(-0.5, 0.5, rate_hz // 4).astype(np.float32)
            heard = await tab.run(
                """async ([noise, rate]) => {
                    const context = new OfflineAudioContext(1, noise.length, rate);
                    const url = URL.createObjectURL(new Blob([model.get("worklet")], { type: "text/javascript" }));
                    await context.audioWorklet.addModule(url);
                    const node = new AudioWorkletNode(context, "rtnb-microphone", { numberOfOutputs: 0 });
                    const frames = [];
                    node.port.onmessage = ({ data }) => frames.push(...data.pcm);
                    const buffer = context.createBuffer(1, noise.length, rate);
                    const source = new AudioBufferSourceNode(context, { buffer });
                    buffer.copyToChannel(Float32Array.from(noise), 0);
                    source.connect(node);
                    source.start();
                    await context.startRendering();
                    await new Promise((resolve) => setTimeout(resolve, 50));
                    return frames;
                }""",
                [noise.tolist(), rate_hz],
            )
            assert len(heard) >= 24_000 // 4 - 480 - 100
            wanted = resample(noise, from_rate_hz=rate_hz, to_rate_hz=24_000)[: len(heard)]
            assert np.abs(np.array(heard) / 32_768 - wanted).max() < 1.1 / 32_768, rate_hz


@pytest.mark.parametrize("why", ["was not allowed to use the microphone", "There is no microphone"])
async def test_a_refusal_is_said_in_the_widget_and_raised(
    playwright: Any, chromium_path: str, mic: Microphone, why: str
) -> None:
    denied = "allowed" in why  # else this machine's own devices are asked for
    args = [flag for flag in flags() if denied or "fake-device" not in flag]
    args += ["--use-fake-ui-for-media-stream=deny"] if denied else []
    browser = await playwright.chromium.launch(executable_path=chromium_path, args=args)
    async with shown_in(browser) as show:
        tab = await show(mic)
        devices = "navigator.mediaDevices.enumerateDevices().then((all) => all.map((one) => one.kind))"
        if not denied and "audioinput" in await tab.run(devices):
            pytest.skip("this machine has a microphone")
        with pytest.raises(WidgetError, match=why) as raised:
            await mic.record(1)
        assert raised.value.__notes__
        await tab.page.get_by_role("status").get_by_text(why).wait_for()
        await tab.page.get_by_text("File to say instead").wait_for()
        assert mic.state == "off"
    await browser.close()


async def test_an_insecure_page_says_so(launch: Any, mic: Microphone) -> None:
    async with shown_in(await launch("--host-resolver-rules=MAP insecure.test 127.0.0.1")) as show:
        tab = await show(mic, host="insecure.test")
        await tab.page.get_by_text("only on https and localhost").wait_for()
        with pytest.raises(WidgetError, match="only on https and localhost"):
            await mic.record(1)


async def test_what_ends_a_clip_too_early(browser: Any, mic: Microphone) -> None:
    async with shown_in(browser) as show:
        tab = await show(mic)
        endings = {
            "was unplugged": "tracks.at(-1).dispatchEvent(new Event('ended'))",
            "tab was hidden": "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange')); delete document.hidden",
            "was stopped": "document.querySelector('.rtnb-start').click()",
            "microphone was stopped": "unrender()",
        }
        for words, script in endings.items():
            clip = asyncio.ensure_future(mic.record(30))
            await tab.until("live() === 1")
            await eventually(lambda: mic.state == "on")
            await tab.run(f"() => {{ {script} }}")
            with pytest.raises(WidgetError, match=words):
                await clip
            await tab.until("live() === 0")


KEYS = """() => {
    window.keys = [];
    for (const name of ["keydown", "keyup"]) window.addEventListener(name, () => keys.push(performance.now()), true);
}"""


async def test_push_to_talk_mute_and_the_keyboard(launch: Any, tmp_path: Path) -> None:
    mic = Microphone(mode="push to talk", **RAW)
    voice = write_voice(tmp_path / "voice.wav", seconds=12, end="")  # without a pause, which would be silent, too
    async with shown_in(await launch(f"--use-file-for-fake-audio-capture={voice}")) as show:
        page = (await show(mic)).page
        await page.evaluate(PAGE)
        await page.evaluate(KEYS)
        await page.get_by_role("button", name="Start").click()
        await page.get_by_text("Hold the button or F8 to talk").wait_for()
        await eventually(lambda: mic.state == "on")
        before = mic.counts["sent"]
        clip = asyncio.ensure_future(mic.record(5))
        await eventually(lambda: mic.counts["sent"] >= before + 20)  # 0.4 s without the key
        await page.keyboard.down("F8")
        await page.get_by_text("Listening").wait_for()
        await page.wait_for_timeout(700)
        await page.keyboard.up("F8")
        silent = np.abs(await clip).reshape(-1, 480).max(axis=1) == 0
        loud = np.flatnonzero(~silent)
        assert silent[:10].all()
        assert silent[-10:].all()
        down_ms, up_ms = await page.evaluate("keys")
        lag_ms = max(await beats(page))
        extent_ms = 20 * (loud[-1] - loud[0] + 1)
        assert abs(extent_ms - (up_ms - down_ms + 120)) < 60 + lag_ms, "the key's time, and a tail of 0.12 s"
        button = page.get_by_role("button", name="Hold to talk")
        await button.focus()
        await page.keyboard.down("Space")
        await page.get_by_text("Listening").wait_for()
        await page.keyboard.up("Space")
        await page.get_by_text("Hold the button").wait_for()
        await page.get_by_label("Mode").select_option("open")
        await page.get_by_text("Listening").wait_for()
        await page.get_by_role("button", name="Mute").click()
        await page.get_by_text("only silence leaves").wait_for()
        assert not np.any(await mic.record(0.5))
        assert await page.evaluate("live()") == 1, "it was on before the clip, so it stays on"
    mic.close()


async def test_two_tabs_never_both_listen(browser: Any, mic: Microphone) -> None:
    async with shown_in(browser) as show:
        first, second = await show(mic), await show(mic)
        for tab in (first, second):
            await tab.until("channel.status().kind === 'direct'")
        await first.page.get_by_role("button", name="Start").click()
        await first.until("live() === 1")
        await second.page.get_by_text("on another page").wait_for()
        await second.page.get_by_role("button", name="Start").click()
        await second.until("live() === 1")
        await first.until("live() === 0")
        await first.page.get_by_text("Another tab").or_(first.page.get_by_text("on another page")).first.wait_for()
        await eventually(lambda: mic.state == "on")
        await second.page.close()
        await eventually(lambda: mic.state == "off")


SLOW_SOCKET = """
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
    set onopen(said) { super.onopen = (event) => setTimeout(() => said(event), 400); }
};"""


async def test_the_capture_page_works_once(browser: Any, launch: Any, mic: Microphone, pictures: Path) -> None:
    async with shown_in(await launch("--host-resolver-rules=MAP insecure.test 127.0.0.1")) as show:
        tab = await show(mic, host="insecure.test")
        link = tab.page.get_by_role("link", name="Open the capture page")
        await link.wait_for()
        url = await link.get_attribute("href")
        assert url is not None
        assert url.startswith("http://127.0.0.1:")
        popout = await (await browser.new_context(permissions=["microphone"])).new_page()
        await popout.add_init_script(SLOW_SOCKET)
        await popout.goto(url)
        await popout.get_by_role("button", name="Start").click()  # not there before the kernel can hear of it
        await eventually(lambda: mic.state == "on")
        assert len(await mic.record(0.5)) == 12_000
        await tab.page.get_by_text("on another page").wait_for()
        await popout.get_by_role("button", name="Mute").click()
        await eventually(lambda: mic.muted)
        await popout.screenshot(path=pictures / "microphone-capture-page.png")
        again = await (await browser.new_context()).new_page()
        assert "works once" in await (await again.goto(url)).text()
        await popout.close()
        await eventually(lambda: mic.state == "off")


async def test_a_file_stands_in_where_there_is_no_microphone(launch: Any, mic: Microphone, voice: Path) -> None:
    async with shown_in(await launch("--use-fake-ui-for-media-stream=deny")) as show:
        tab = await show(mic)
        await tab.page.get_by_role("button", name="Start").click()
        await tab.page.get_by_label("File to say instead").set_input_files(voice)
        await eventually(lambda: mic.state == "on")
        clip = await mic.record(1)
        assert likeness(clip, voice) > 0.99
        assert mic.stand_in == "voice.wav (8.0 s)"
