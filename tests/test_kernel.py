"""A playground's session, used in a real Jupyter kernel: from cells, and from a thread with another loop."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec

ROOT = Path(__file__).resolve().parent.parent

CALL_S = 10
"""Longest time of each call; a healthy one takes less than a second, and the issue allows 20 s."""

Run = Callable[[str], str]


class _ThisPython(KernelManager):
    """Kernel of this very Python, whatever kernels the user has installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="this Python", language="python")


@pytest.fixture(scope="module")
def kernel() -> Iterator[BlockingKernelClient]:
    """Kernel for all tests of this file."""
    manager = _ThisPython()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    manager.start_kernel(cwd=str(ROOT), env={**os.environ, "PYTHONPATH": path})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def run(kernel: BlockingKernelClient) -> Iterator[Run]:
    """Run a cell, fail with its traceback, and return what it printed; a playground on a new session is there."""

    def run_cell(code: str, *, timeout_s: float = 4 * CALL_S) -> str:
        printed: list[str] = []
        failures: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            if message["msg_type"] == "error":
                failures.append(f"{content['ename']}: {content['evalue']}")

        source = textwrap.dedent(code)
        kernel.execute_interactive(source, timeout=timeout_s, output_hook=note, allow_stdin=False)
        assert not failures, f"{failures[0]} in:\n{source}"
        return "".join(printed)

    run_cell(PREPARE, timeout_s=60)
    yield run_cell
    run_cell("playground.close()")


PREPARE = f"""
import asyncio, threading, time
import rtnb

playground = rtnb.Playground(rtnb.Simulator(latency="fast", voice="babble"), microphone=False, name="test")
session = playground.session


async def waited(response):
    return await response


async def within(call):
    start_s = time.monotonic()
    result = await asyncio.wait_for(call, {CALL_S + 2})
    # A loop that a result does not wake finds the result when a timer does.
    assert time.monotonic() - start_s < {CALL_S}, "the call ended, but its loop was not woken"
    return result


def in_a_thread(work):
    ended = []

    def run():
        ended.append(asyncio.run(work()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join({2 * CALL_S})
    assert ended, "the thread did not end"
"""

CALLS = {
    "ask": """
        response = await within(session.ask("What is a delta?"))
        assert response.status == "completed", response
        assert response.transcript, response
    """,
    "ask, streamed": """
        response = await within(session.ask("What is a delta?", stream=True))
        assert [delta.kind async for delta in response], response
        assert (await within(response)).status == "completed"
    """,
    "update": """
        config = await within(session.update(instructions="Be brief."))
        assert config.instructions == "Be brief."
    """,
    "response.create": """
        response = await within(session.response.create())
        assert (await within(waited(response))).status == "completed"
    """,
    "deltas": """
        async def kinds():
            return [delta.kind async for delta in await session.response.create()]

        assert "audio" in await within(kinds())
    """,
    "async for": """
        async def types():
            asking = asyncio.ensure_future(session.ask("What is a delta?"))
            seen = []
            async for event in session:
                seen.append(event.type)
                if event.type == "response.done":
                    break
            await asking
            return seen

        assert "response.output_audio.delta" in await within(types())
    """,
    "interrupt": """
        await within(session.response.create())
        await within(session.interrupt())
    """,
    "items": """
        item = await within(session.conversation.item.create("A note."))
        await within(session.conversation.item.delete(item.id))
        await within(session.input_audio_buffer.append(bytes(9_600)))
        await within(session.input_audio_buffer.commit())
        await within(session.input_audio_buffer.clear())
    """,
    "next_response": """
        waiting = asyncio.ensure_future(session.next_response())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await within(asyncio.wait([waiting]))
    """,
    "close": """
        await within(session.close())
        assert session.closed
    """,
}
"""Each call as the lines of a coroutine."""


def in_a_cell(call: str) -> str:
    """Return a cell with a call."""
    return CALLS[call]


def in_a_thread(call: str) -> str:
    """Return a cell with a call in a thread that has its own loop."""
    body = textwrap.indent(textwrap.dedent(CALLS[call]), "    ")
    return f"async def work():\n{body}\n    return True\n\n\nin_a_thread(work)"


@pytest.mark.parametrize("where", [in_a_cell, in_a_thread])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends(run: Run, call: str, where: Callable[[str], str]) -> None:
    run(where(call))


def test_the_session_is_still_usable_from_cells_after_threads_used_it(run: Run) -> None:
    for cell in (in_a_cell("ask"), in_a_thread("update")) * 2:
        run(cell)


def test_cancelling_a_call_in_a_cell_leaves_the_session_usable(run: Run) -> None:
    run("""
        waiting = asyncio.ensure_future(session.ask("Count to fifty."))
        await asyncio.sleep(0)
        waiting.cancel()
        await within(asyncio.wait([waiting]))
    """)
    run(CALLS["ask"])


def test_a_playground_closes_in_a_cell(run: Run) -> None:
    assert run("playground.close()\nprint(session.closed)") == "True\n"
