"""`microphone.js` in Chromium against `Microphone` in this process: recordings, refusals, backpressure, looks."""

import asyncio
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb import Custom, connect
from rtnb.audio import read_wav
from rtnb.errors import WidgetError
from rtnb.widgets import Microphone
from rtnb.widgets.channel import SWITCH
from tests.browser.axe import violations
from tests.client.peer import Peer, failure
from tests.widgets.browser.bridge import Tab
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


@pytest.fixture
async def show(browser: Any, launch: Any) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Show a microphone on a new page, with flags in a browser of its own: ``tab = await show(mic, "--flag", …)``."""
    async with AsyncExitStack() as stack:

        async def shown(mic: Microphone, *more: str, **options: Any) -> Tab:
            opened = await stack.enter_async_context(shown_in(await launch(*more) if more else browser))
            return await opened(mic, **options)

        yield shown


def recorded(path: Path) -> str:
    """Return the flag of a microphone that hears a file."""
    return f"--use-file-for-fake-audio-capture={path}"


REFUSE = """(name) => {
    MediaDevices.prototype.getUserMedia = async () => { throw new DOMException("refused", name); };
}"""


async def test_a_recording_is_like_the_file_and_then_the_track_ends(
    show: Any, mic: Microphone, voice: Path, tmp_path: Path
) -> None:
    tab = await show(mic, recorded(voice))
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
    assert counts["dropped"] == 0
    assert 20 * counts["late"] <= still_ms, "late only while the page or the loop stood still"
    assert mic.devices[0].startswith("Fake")
    assert mic.device_rate_hz in (44_100, 48_000)
    with pytest.raises(ValueError, match="seconds is 0"):
        await mic.record(0)


async def test_settings_changed_just_before_the_start_are_those_of_the_capture(show: Any, mic: Microphone) -> None:
    tab = await show(mic, pass_on=lambda data: data["method"] != "update")  # that message is still on its way
    mic.echo_cancellation = mic.auto_gain_control = True
    mic.start()
    await tab.until("live() === 1")
    got = await tab.run("tracks.at(-1).getSettings()")
    names = ("echoCancellation", "noiseSuppression", "autoGainControl")
    assert [got[name] for name in names] == [True, False, True]


async def test_a_click_before_the_page_is_connected_takes_the_microphone_from_the_other_page(
    show: Any, mic: Microphone
) -> None:
    connected = False
    first = await show(mic)
    await first.page.click(".rtnb-start")
    await first.until("live() === 1")
    second = await show(mic, pass_on=lambda data: connected)
    await second.page.click(".rtnb-start")
    connected = True
    await second.until("live() === 1")
    await first.until("live() === 0")
    await second.page.locator(".rtnb-microphone[data-state=on]").wait_for()


def write_right_channel(path: Path, seconds: int) -> Path:
    """A stereo file of 48 kHz with a tone on the right channel only."""
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000 * seconds) / 48_000)
    samples = np.stack([np.zeros_like(tone), 0.5 * tone], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes((32_767 * samples).astype("<i2").tobytes())
    return path


async def test_a_signal_on_the_right_channel_only_is_recorded(show: Any, mic: Microphone, tmp_path: Path) -> None:
    stereo = write_right_channel(tmp_path / "stereo.wav", 8)
    await show(mic, recorded(stereo))
    assert np.abs((await mic.record(1))[12_000:]).max() > 0.2


async def test_every_channel_of_a_source_is_mixed(show: Any, mic: Microphone) -> None:
    tab = await show(mic)
    for channels in (1, 2, 3, 8):
        peak = await tab.run(
            """async (channels) => {
                const context = new OfflineAudioContext(1, 12000, 48000);
                const url = URL.createObjectURL(new Blob([model.get("worklet")], { type: "text/javascript" }));
                await context.audioWorklet.addModule(url);
                const node = new AudioWorkletNode(context, "rtnb-microphone", { numberOfOutputs: 0 });
                const peaks = [];
                node.port.onmessage = ({ data }) => peaks.push(Math.max(...data.pcm) / 32768);
                const buffer = context.createBuffer(channels, 12000, 48000);
                buffer.getChannelData(channels - 1).fill(0.8);
                const source = new AudioBufferSourceNode(context, { buffer });
                source.connect(node);
                source.start();
                await context.startRendering();
                while (peaks.length < 12) await new Promise((resolve) => setTimeout(resolve, 5));
                return Math.max(...peaks);
            }""",
            channels,
        )
        assert peak == pytest.approx(0.8 / channels, abs=1e-4)


async def test_a_page_whose_security_policy_refuses_the_worklet_is_off(show: Any, mic: Microphone) -> None:
    policy = """() => {
        const meta = document.createElement("meta");
        Object.assign(meta, { httpEquiv: "Content-Security-Policy", content: "script-src 'self'" });
        document.head.append(meta);
    }"""
    tab = await show(mic)
    await tab.run(policy)
    with pytest.raises(WidgetError, match="security policy") as raised:
        await mic.record(1)
    assert raised.value.__notes__ == ["Use an audio file."]
    assert (mic.state, "security policy" in mic.problem) == ("off", True)
    assert await tab.run("live()") == 0
    await tab.page.get_by_role("status").get_by_text("security policy").wait_for()
    await tab.page.get_by_role("button", name="Send an audio file instead").wait_for()


@pytest.mark.parametrize("why", ["does not allow the microphone", "No microphone was found"])
async def test_a_refusal_is_shown_in_the_widget_and_raised(show: Any, mic: Microphone, why: str) -> None:
    if "allow" in why:
        tab = await show(mic, "--use-fake-ui-for-media-stream=deny")
    else:
        tab = await show(mic)
        await tab.run(REFUSE, "NotFoundError")
    with pytest.raises(WidgetError, match=why) as raised:
        await mic.record(1)
    assert raised.value.__notes__
    await tab.page.get_by_role("status").get_by_text(why).wait_for()
    await tab.page.get_by_text("Send an audio file instead").wait_for()
    assert mic.state == "off"


async def test_an_insecure_page_is_named_as_the_reason(show: Any, mic: Microphone) -> None:
    tab = await show(mic, "--host-resolver-rules=MAP insecure.test 127.0.0.1", host="insecure.test")
    await tab.page.get_by_text("only on https and localhost").wait_for()
    with pytest.raises(WidgetError, match="only on https and localhost"):
        await mic.record(1)


async def test_what_ends_a_clip_too_early(show: Any, mic: Microphone) -> None:
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


@pytest.fixture
async def page(show: Any, mic: Microphone, tmp_path: Path) -> Any:
    """The page of a microphone that is on and whose key is to be held, heard without a pause."""
    mic.mode = "push to talk"
    voice = write_voice(tmp_path / "voice.wav", seconds=12, end="")  # without a pause, which would be silent, too
    page = (await show(mic, recorded(voice))).page
    await page.evaluate(PAGE)
    await page.evaluate(KEYS)
    await page.get_by_role("button", name="Start microphone").click()
    await page.get_by_text("Hold the button or F8 to talk").wait_for()
    await eventually(lambda: mic.state == "on")
    return page


async def test_only_what_is_spoken_while_the_key_is_held_is_heard(page: Any, mic: Microphone) -> None:
    before = mic.counts["sent"]
    clip = asyncio.ensure_future(mic.record(5))
    await eventually(lambda: mic.counts["sent"] >= before + 20)  # 0.4 s without the key
    await page.keyboard.down("F8")
    await page.get_by_text("Listening").wait_for()
    held = mic.counts["sent"]
    await eventually(lambda: mic.counts["sent"] >= held + 35)  # 0.7 s with it
    await page.keyboard.up("F8")
    silent = np.abs(await clip).reshape(-1, 480).max(axis=1) == 0
    loud = np.flatnonzero(~silent)
    assert silent[:10].all()
    assert silent[-10:].all()
    down_ms, up_ms = await page.evaluate("keys")
    lag_ms = max(await beats(page))
    extent_ms = 20 * (loud[-1] - loud[0] + 1)
    assert abs(extent_ms - (up_ms - down_ms + 120)) < 60 + lag_ms, "the key's time, and a tail of 0.12 s"


async def test_the_button_mode_and_mute_decide_what_is_sent(page: Any, mic: Microphone) -> None:
    await page.get_by_role("button", name="Hold to talk").focus()
    await page.keyboard.down("Space")
    await page.get_by_text("Listening").wait_for()
    await page.keyboard.up("Space")
    await page.get_by_text("Hold the button").wait_for()
    await page.evaluate("model.set('mode', 'open')")
    await page.get_by_text("Listening").wait_for()
    await page.get_by_role("button", name="Mute").click()
    await page.get_by_text("only silence is sent").wait_for()
    for _ in range(25):  # frames from before the click may still be under way
        if not np.any(await mic.record(0.02)):
            break
    assert not np.any(await mic.record(0.5))
    assert await page.evaluate("live()") == 1, "it was on before the clip, so it stays on"


async def test_of_two_tabs_only_the_newest_records(show: Any, mic: Microphone) -> None:
    first, second = await show(mic), await show(mic)
    for tab in (first, second):
        await tab.until("channel.kind === 'direct'")
    await first.page.get_by_role("button", name="Start microphone").click()
    await first.until("live() === 1")
    await second.page.get_by_text("on in another tab").wait_for()
    await second.page.get_by_role("button", name="Start microphone").click()
    await second.until("live() === 1")
    await first.until("live() === 0")
    await first.page.get_by_role("status").get_by_text("on in another tab").wait_for()
    await eventually(lambda: mic.state == "on")
    await second.page.close()
    await eventually(lambda: mic.state == "off")
    assert mic.problem == "The page with the microphone was closed. Show the widget again."


async def denied(show: Any, mic: Microphone) -> Tab:
    """Show a microphone that the user does not allow, and click on it."""
    tab: Tab = await show(mic)
    await tab.run(REFUSE, "NotAllowedError")
    await tab.page.get_by_role("button", name="Start microphone").click()
    await eventually(lambda: "does not allow the microphone" in mic.problem)
    return tab


async def test_an_audio_file_replaces_a_missing_microphone(show: Any, mic: Microphone, tmp_path: Path) -> None:
    stereo = write_right_channel(tmp_path / "stereo.wav", 3)
    page = (await denied(show, mic)).page
    await page.locator(".rtnb-microphone input[type=file]").set_input_files(stereo)
    await eventually(lambda: mic.state == "on")
    clip = await mic.record(1)
    assert np.abs(clip).max() == pytest.approx(0.25, abs=0.02)  # the mean of both channels
    assert mic.sample == "stereo.wav (3.0 s)"
    assert mic.status == "Playing stereo.wav (3.0 s)"


BUSY_KERNEL = """Object.getPrototypeOf(channel).request = (name, kind, header, { signal }) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
0;"""


async def test_a_broken_or_cancelled_audio_file_is_named(show: Any, mic: Microphone, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    page = (await denied(show, mic)).page
    chooser = page.locator(".rtnb-microphone input[type=file]")
    await chooser.set_input_files(tmp_path / "broken.wav")
    await page.get_by_role("status").get_by_text("broken.wav was not sent:").wait_for()
    await page.evaluate(BUSY_KERNEL)
    await chooser.set_input_files(write_right_channel(tmp_path / "long.wav", 3))
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("status").get_by_text("long.wav was not sent: cancelled.").wait_for()
    assert (mic.state, mic.sample) == ("off", "")


async def test_frames_wait_and_are_dropped_where_the_channel_is_full(show: Any, mic: Microphone) -> None:
    tab = await show(mic)
    await tab.until("channel.kind === 'direct'")
    await tab.page.get_by_role("button", name="Start microphone").click()
    await eventually(lambda: mic.state == "on")
    await tab.run(
        "Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { get: () => 2 ** 30, configurable: true })"
    )
    await tab.page.get_by_role("status").get_by_text("frames dropped").wait_for()
    await tab.run("delete WebSocket.prototype.bufferedAmount")
    await eventually(lambda: mic.counts["dropped"] and "frames dropped" in mic.status)
    counts = mic.counts
    assert counts["captured"] == sum(counts[name] for name in ("sent", "dropped", "unused", "waiting"))


async def test_by_widget_messages_every_frame_is_counted(
    show: Any, mic: Microphone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "messages")
    tab = await show(mic)
    await tab.page.get_by_role("button", name="Start microphone").click()
    await eventually(lambda: mic.counts["captured"] >= 25)
    clip = asyncio.ensure_future(mic.record(4))
    tab.kernel_hears = False  # a cell blocks
    await tab.page.get_by_role("status").get_by_text("frames dropped").wait_for()
    tab.release()
    assert len(await clip) == 4 * 24_000
    counts = mic.counts
    assert counts["captured"] == sum(counts[name] for name in ("sent", "dropped", "unused", "waiting")), counts


async def test_names_states_and_values_are_there_for_screen_readers(show: Any, mic: Microphone) -> None:
    page = (await show(mic)).page
    start, mute = page.locator(".rtnb-start"), page.get_by_role("button", name="Mute")
    assert await start.inner_text() == "Start microphone"
    assert await start.get_attribute("title") == "The browser asks for permission"
    meter = page.get_by_role("meter", name="Level")
    names = ("min", "max", "aria-valuetext")
    assert [await meter.get_attribute(name) for name in names] == ["-60", "0", "silent"]
    await start.click()
    await page.locator(".rtnb-microphone[data-state=on]").wait_for()
    assert await start.inner_text() == "Stop microphone"
    await page.locator("meter:not([aria-valuetext=silent])").wait_for()  # Chromium's microphone beeps
    assert (await meter.get_attribute("aria-valuetext") or "").endswith("dB")
    assert await mute.get_attribute("aria-pressed") == "false"
    await mute.click()
    assert await mute.get_attribute("aria-pressed") == "true"
    await page.evaluate("model.set('mode', 'push to talk')")
    assert await page.get_by_role("button", name="Hold to talk").get_attribute("aria-pressed") == "false"
    await page.keyboard.down("F8")
    await page.get_by_role("button", name="Talking…", pressed=True).wait_for()
    await page.keyboard.up("F8")
    await page.get_by_role("button", name="Hold to talk", pressed=False).wait_for()


# JupyterLab's own colours
THEMES = {
    "light": "--jp-ui-font-color1: rgba(0, 0, 0, 0.87); --jp-layout-color1: #fff",
    "dark": "--jp-ui-font-color1: #fff; --jp-layout-color1: #111",
}


@pytest.mark.parametrize("theme", THEMES)
async def test_axe_finds_no_violation(show: Any, mic: Microphone, theme: str) -> None:
    page = (await show(mic)).page
    both = "--jp-warn-color1: #f57c00; --jp-error-color1: #d32f2f"
    await page.add_style_tag(content=f":root {{ color-scheme: {theme}; {both}; {THEMES[theme]} }}")
    for warning in ("", "too quiet", "clipping", "problem"):
        colour = "(warning) => { document.querySelector('.rtnb-microphone').dataset.warning = warning; }"
        await page.evaluate(colour, warning)
        assert await page.get_by_role("status").inner_text(), "its contrast is checked"
        assert await violations(page, ".rtnb-microphone") == [], warning
    await page.locator(".rtnb-start").click()
    await page.locator(".rtnb-microphone[data-state=on]").wait_for()
    assert await violations(page, ".rtnb-microphone") == []


async def test_in_a_playground_it_is_one_row(show: Any, mic: Microphone, pictures: Path) -> None:
    page = (await denied(show, mic)).page
    await page.evaluate("document.body.className = 'rtnb-frame'")
    root = page.locator(".rtnb-microphone")
    box = await root.bounding_box()
    assert box is not None
    assert box["height"] == 32
    assert not await page.get_by_role("status").is_visible()
    await root.screenshot(path=pictures / "microphone-compact-denied.png")


async def test_a_sample_recording_is_played_and_stopped_on_the_page(show: Any) -> None:
    mic = Microphone(source=np.full(24_000, 0.25, np.float32))
    page = (await show(mic)).page
    await page.get_by_role("button", name="Play the sample recording").click()
    await page.get_by_role("status").get_by_text("Playing array (1.0 s)").wait_for()
    await page.locator("meter:not([aria-valuetext=silent])").wait_for()
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("button", name="Play the sample recording").wait_for()
    assert mic.state == "off"
    mic.close()


async def test_an_error_of_the_session_is_shown_while_the_microphone_goes_on(show: Any, mic: Microphone) -> None:
    refusal = failure("input_audio_buffer_commit_empty", "the buffer is too small")
    peer = Peer(refuse={"input_audio_buffer.commit": [refusal]})
    async with peer, connect(Custom(peer.url), turn_detection=None) as session:
        mic.session, mic.mode = session, "push to talk"
        page = (await show(mic)).page
        await page.get_by_role("button", name="Start microphone").click()
        await eventually(lambda: mic.state == "on")
        await page.keyboard.down("F8")
        await page.keyboard.up("F8")
        await page.get_by_role("status").get_by_text("the buffer is too small").wait_for()
        assert "the buffer is too small" in mic.problem
        assert mic.state == "on"
        await page.get_by_role("button", name="Mute").click()  # the page reports its state again
        await eventually(lambda: mic.status.startswith("Muted"))
        assert "the buffer is too small" in mic.problem
        await page.get_by_role("button", name="Mute").click()
        await page.keyboard.down("F8")
        await eventually(lambda: not mic.problem)
