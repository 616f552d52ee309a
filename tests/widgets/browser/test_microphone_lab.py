"""`Microphone` in a real JupyterLab: audio reaches the simulator while a cell blocks, and the privacy rules hold."""

import os
import signal
from pathlib import Path
from typing import Any

from rtnb.audio import read_wav
from tests.browser.lab import open_notebook as open_in
from tests.widgets.browser.microphone_page import TRACKS, likeness, write_voice
from tests.widgets.browser.stalls import KERNEL, PAGE, beats, stalled_ms
from tests.widgets.listening import run

RAW = "echo_cancellation=False, noise_suppression=False, auto_gain_control=False"
UNTOUCHED = {"echoCancellation": False, "noiseSuppression": False, "autoGainControl": False}
ALONE = "import os, rtnb\nmic = rtnb.Microphone()\nmic"
TALK = f"""
import time, rtnb
from rtnb._loop import shared_loop
from rtnb.audio import write_wav
simulator = rtnb.Simulator()
async def opened():
    return await rtnb.connect(simulator, turn_detection=None)
session = shared_loop().run(opened(), 30)
mic = rtnb.Microphone(session, {RAW})
mic
"""
BLOCK = """
before = mic.counts
time.sleep(5)
after = mic.counts
print({name: after[name] - before[name] for name in after})
"""
HEARD = """
async def heard():
    item = await session.input_audio_buffer.commit()
    return (await session.conversation.item.retrieve(item)).content[0].audio
write_wav({path!r}, rtnb.audio.decode_pcm16(shared_loop().run(heard(), 10)), rate_hz=24_000)
print(mic.counts)
"""
PIPELINE = """
import ipywebrtc
source = ipywebrtc.{source}
mic = rtnb.Microphone(source=source, {raw})
display(source, mic)
write_wav({path!r}, await mic.record(2), rate_hz=24_000)
"""


async def start(notebook: Any) -> None:
    """Press Start; the page now has one live track."""
    await notebook.page.evaluate(TRACKS)
    await notebook.page.locator(".rtnb-start").click()
    await notebook.page.wait_for_function("live() === 1")
    await notebook.page.locator(".rtnb-microphone[data-state=on]").wait_for()


async def off(notebook: Any, *, timeout_s: float = 10.0) -> None:
    await notebook.page.wait_for_function("live() === 0", timeout=1000 * timeout_s)


async def test_stop_close_clear_and_a_closed_tab_stop_it(open_notebook: Any) -> None:
    notebook = await open_notebook("microphone-off.ipynb", cells=[ALONE, "0"])
    await notebook.run_all()
    await start(notebook)
    got = await notebook.page.evaluate("tracks[0].getSettings()")
    assert [got[name] for name in UNTOUCHED] == [True] * 3, "ipywebrtc's adapter must not lose what was asked for"
    await notebook.page.locator(".rtnb-start").click()
    await off(notebook)
    await start(notebook)
    await run(notebook, "mic.close()")
    await off(notebook)
    for ending in (
        "jupyterapp.commands.execute('notebook:clear-all-cell-outputs')",
        "panel.context.model.dirty = false, panel.close()",  # no question
    ):
        await run(notebook, cell=0)
        await start(notebook)
        await notebook.on_panel(ending)
        await off(notebook)


async def test_the_end_of_the_kernel_stops_it(open_notebook: Any) -> None:
    notebook = await open_notebook("microphone-killed.ipynb", cells=[ALONE, "print(os.getpid())"])
    pid = int((await notebook.run_all())[1])
    await start(notebook)
    os.kill(pid, signal.SIGKILL)
    await off(notebook, timeout_s=20)
    await notebook.page.get_by_text("the kernel does not answer").wait_for()
    assert await notebook.page.locator(".rtnb-microphone").get_attribute("data-state") == "off"


async def test_audio_reaches_the_simulator_while_a_cell_blocks(
    jupyterlab: Any, launch: Any, pictures: Path, tmp_path: Path
) -> None:
    voice = write_voice(tmp_path / "voice.wav")
    browser = await launch(f"--use-file-for-fake-audio-capture={voice}")
    jupyterlab.write("microphone.ipynb", [TALK, "0"])
    notebook = await open_in(jupyterlab, browser, "microphone.ipynb", pictures=pictures)
    await notebook.run_all()
    await notebook.page.evaluate(PAGE)
    await run(notebook, KERNEL)
    await start(notebook)
    counts = eval(await run(notebook, BLOCK))
    await notebook.picture("on")
    after = eval(await run(notebook, HEARD.format(path=str(tmp_path / "heard.wav"))))
    still_ms = stalled_ms(eval(await run(notebook, "print(heart.stop())")), await beats(notebook.page))
    # Frames wait while the page or the loop stands still.
    assert 20 * counts["sent"] >= 4_500 - still_ms, counts
    assert 20 * (counts["late"] + after["dropped"]) <= still_ms, (counts, after)
    heard = read_wav(tmp_path / "heard.wav")[0]
    assert likeness(heard[12_000 : 12_000 + 5 * 24_000], voice) >= 0.95

    await run(notebook, "mic.stop()")
    await off(notebook)
    for source in (
        f"AudioStream.from_file({str(voice)!r})",
        f"CameraStream(constraints={{'audio': {UNTOUCHED}, 'video': False}})",
    ):
        await run(notebook, PIPELINE.format(source=source, raw=RAW, path=str(tmp_path / "clip.wav")))
        assert likeness(read_wav(tmp_path / "clip.wav")[0][24_000:], voice) >= 0.95, source
        await off(notebook)
        audible = """[...document.querySelectorAll("video, audio")].filter((one) => !one.muted).length"""
        assert await notebook.page.evaluate(audible) == 0, source
    assert await notebook.page.evaluate("window.last_audio_stream.media.muted")


async def test_a_recording_shows_the_widget_once(open_notebook: Any) -> None:
    name, clip = "clip.ipynb", "print(len(await mic.record(0.2)))"
    notebook = await open_notebook(name, cells=["import rtnb\nmic = rtnb.Microphone()\nmic", clip, clip])
    assert [text.strip() for text in (await notebook.run_all())[1:]] == ["4800", "4800"]
    assert await notebook.page.locator(".rtnb-microphone").count() == 1
    shown = await run(notebook, "mic.close(); mic = rtnb.Microphone(); " + clip)  # not displayed before
    assert "4800" in shown
    assert await notebook.page.locator(".jp-CodeCell").last.locator(".rtnb-microphone").count() == 1
