from __future__ import annotations
import asyncio
from pathlib import Path
from typing import Any
import numpy as np, pytest, struct, wave
from rtnb.widgets import Microphone
from tests.widgets.browser.microphone_page import shown_in
from tests.widgets.page import eventually
RAW = {"echo_cancellation": False, "noise_suppression": False, "auto_gain_control": False}

def stereo(path: Path, seconds=8) -> Path:
    t = np.arange(48_000 * seconds) / 48_000
    right = (0.5 * np.sin(2*np.pi*440*t) * 32767).astype("<i2")
    both = np.stack([np.zeros_like(right), right], axis=1)
    with wave.open(str(path), "wb") as w:
        w.setnchannels(2); w.setsampwidth(2); w.setframerate(48_000); w.writeframes(both.tobytes())
    return path

async def test_device(launch: Any, tmp_path: Path) -> None:
    mic = Microphone(**RAW)
    async with shown_in(await launch(f"--use-file-for-fake-audio-capture={stereo(tmp_path/'s.wav')}")) as show:
        tab = await show(mic)
        clip = await mic.record(1)
        print("DEVICE", np.abs(clip[6000:]).max())
        assert np.abs(clip[6000:]).max() > 0.2
    mic.close()

async def test_file(launch: Any, tmp_path: Path) -> None:
    mic = Microphone(**RAW)
    async with shown_in(await launch("--use-fake-ui-for-media-stream=deny")) as show:
        tab = await show(mic)
        await tab.page.get_by_role("button", name="Start").click()
        await tab.page.get_by_label("File to say instead").set_input_files(stereo(tmp_path/'s.wav', 2))
        await eventually(lambda: mic.state == "on")
        clip = await mic.record(1)
        print("FILE", np.abs(clip[6000:]).max())
        assert np.abs(clip).max() > 0.2
    mic.close()

async def test_csp(browser: Any) -> None:
    mic = Microphone(**RAW)
    async with shown_in(browser) as show:
        tab = await show(mic)
        await tab.run("""() => { const m = document.createElement('meta'); m.httpEquiv='Content-Security-Policy'; m.content="script-src 'self'"; document.head.append(m); }""")
        await tab.page.get_by_role("button", name="Start").click()
        await asyncio.sleep(4)
        print("CSP", mic.state, mic.problem, await tab.run("live()"), await tab.page.get_by_role("status").all_text_contents())
        assert False
