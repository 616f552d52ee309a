"""`Microphone` in a real JupyterLab: audio reaches the simulator while a cell blocks, and the privacy rules hold."""

import os
import signal
from pathlib import Path
from typing import Any

from playwright.async_api import expect

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


async def test_stop_close_clear_and_a_closed_tab_stop_it(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("microphone-off.ipynb", [ALONE, "0"])
    notebook = await open_notebook("microphone-off.ipynb")
    endings = (
        "document.querySelector('.rtnb-start').click()",
        "jupyterapp.commands.execute('notebook:clear-all-cell-outputs')",
        "const tab = jupyterapp.shell.currentWidget; tab.context.model.dirty = false; tab.close()",  # no question
    )
    for script in endings:
        await notebook.run_all()
        await start(notebook)
        if "close" in script:
            await run(notebook, "mic.close()")
            await off(notebook)
            await run(notebook, ALONE)
            await start(notebook)
        await notebook.page.evaluate(f"() => {{ {script} }}")
        await off(notebook)
    assert await notebook.page.evaluate("tracks.length") >= len(endings)  # each was on before it ended
    got = await notebook.page.evaluate("tracks[0].getSettings()")
    assert [got[name] for name in UNTOUCHED] == [True] * 3, "ipywebrtc's adapter must not lose what was asked for"


async def test_the_end_of_the_kernel_stops_it(jupyterlab: Any, open_notebook: Any) -> None:
    restarted, killed = "microphone-restarted.ipynb", "microphone-killed.ipynb"
    notebooks, pids = [], []
    for name in (restarted, killed):
        jupyterlab.write(name, [ALONE, "print(os.getpid())"])
        notebooks.append(await open_notebook(name))
        pids.append(int((await notebooks[-1].run_all())[1].text))
        await start(notebooks[-1])
    (kernel,) = (one["kernel"]["id"] for one in jupyterlab.get("api/sessions") if one["path"] == restarted)
    jupyterlab.post(f"api/kernels/{kernel}/restart", {})
    os.kill(pids[1], signal.SIGKILL)
    for notebook in notebooks:
        await off(notebook, timeout_s=20)
        await notebook.page.get_by_text("the kernel does not answer").wait_for()
        assert await notebook.page.locator(".rtnb-microphone").get_attribute("data-state") == "off"


async def test_of_two_tabs_only_one_records_and_plays(jupyterlab: Any, open_notebook: Any) -> None:
    name = "two-tabs.ipynb"
    cells = ["import rtnb\nplayground = rtnb.Playground(rtnb.Simulator(voice='babble'))\nplayground", "0"]
    one = await open_notebook(name, cells=cells)
    await one.run_all()
    await start(one)
    await one.save()
    two = await open_notebook(name, fresh=True)
    for last, now in ((one, two), (two, one)):
        speaker = now.page.locator(".rtnb-speaker")
        await expect(speaker).to_contain_text("Sound plays in another tab of this notebook.")
        await start(now)
        await off(last)
        await expect(last.page.locator(".rtnb-microphone")).to_contain_text("The microphone is on in another tab")
        await expect(speaker).not_to_contain_text("another tab")
    await run(one, "playground.close()")
    await off(one)


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
    assert [output.text.strip() for output in (await notebook.run_all())[1:]] == ["4800", "4800"]
    assert await notebook.page.locator(".rtnb-microphone").count() == 1
    shown = await run(notebook, "mic.close(); mic = rtnb.Microphone(); " + clip)  # not displayed before
    assert "4800" in shown
    assert await notebook.page.locator(".jp-CodeCell").last.locator(".rtnb-microphone").count() == 1


async def test_by_widget_messages_every_frame_is_counted(jupyterlab: Any, open_notebook: Any) -> None:
    name = "microphone-messages.ipynb"
    jupyterlab.write(name, ["import asyncio, os; os.environ['RTNB_CHANNEL'] = 'messages'\n" + TALK, "0"])
    notebook = await open_notebook(name)
    await notebook.run_all()
    await start(notebook)
    await run(notebook, "while mic.counts['captured'] < 25: await asyncio.sleep(0.02)")
    await run(notebook, "clip = asyncio.ensure_future(mic.record(6))\nawait asyncio.sleep(1)\ntime.sleep(4)")
    counts = eval(await run(notebook, "clip = await clip\nprint(mic.counts)"))
    assert counts["captured"] == sum(counts[name] for name in ("sent", "dropped", "unused", "waiting")), counts
    assert int(await run(notebook, "print(len(clip))")) == 6 * 24_000
