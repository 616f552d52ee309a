"""Refusals of settings that the service does not take: `rtnb.simulator.checks`, through real sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulator.rig import Rig

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def transcription(**fields: Any) -> dict[str, Any]:
    return update(audio={"input": {"transcription": fields}})


REFUSED = [
    (update(audio={"output": {"voice": "robot"}}), "invalid_value", "session.audio.output.voice"),
    (update(prompt={"id": "pmpt_1"}), "prompt_not_found", "session.prompt.id"),
    (transcription(model="whisper-9"), "invalid_value", "session.audio.input.transcription.model"),
    (
        transcription(model="whisper-1", languages=["en"]),
        "invalid_value",
        "session.audio.input.transcription.languages",
    ),
    (transcription(model="whisper-1", delay="low"), "invalid_value", "session.audio.input.transcription.delay"),
    (update(tools=[TOOL | {"name": "two words"}]), "invalid_value", "session.tools[0].name"),
    (update(tools=[TOOL, TOOL]), "invalid_value", "session.tools[1].name"),
    (
        update(tools=[TOOL | {"parameters": {"type": "array"}}]),
        "invalid_function_parameters",
        "session.tools[0].parameters",
    ),
    (update(tools=[TOOL], tool_choice={"type": "function", "name": "g"}), "invalid_value", "session.tool_choice"),
    (update(tools=[{"type": "mcp"}]), "missing_required_parameter", "session.tools[0].server_label"),
    (
        update(tools=[{"type": "mcp", "server_label": "docs"}]),
        "missing_required_parameter",
        "session.tools[0].server_url",
    ),
    (
        {"type": "response.create", "response": {"tool_choice": {"type": "function", "name": "g"}}},
        "invalid_value",
        "response.tool_choice",
    ),
    (
        {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [PICTURE]}},
        "invalid_value",
        "item.content[0].image_url",
    ),
]


@pytest.mark.parametrize("message, code, param", REFUSED, ids=[param for _, _, param in REFUSED])
async def test_what_the_service_does_not_take_is_refused_as_a_whole(
    rig: Rig, message: dict[str, Any], code: str, param: str
) -> None:
    before = rig.session.state.session
    rig.send_raw({"event_id": "e1", **message})
    error = await rig.refusal()
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "e1")
    assert rig.session.state.session == before
    assert (await rig.ask("hello"))["status"] == "completed"


TAKEN = [
    update(audio={"output": {"voice": "marin"}}),
    update(audio={"output": {"voice": {"id": "voice_1"}}}),
    transcription(model="gpt-4o-transcribe", language="en"),
    transcription(model="gpt-realtime-whisper", delay="low"),
    update(tools=[TOOL], tool_choice={"type": "function", "name": "f"}),
    update(tools=[{"type": "mcp", "server_label": "docs", "server_url": "http://127.0.0.1:1/"}]),
    update(model="gpt-realtime"),
    update(model="test"),
]


@pytest.mark.parametrize(
    "message, azure",
    [*((message, False) for message in TAKEN), (transcription(model="my-whisper"), True)],  # a deployment's name
)
async def test_what_it_takes_is_not(message: dict[str, Any], azure: bool) -> None:
    async with Rig(azure=azure) as rig:
        rig.send_raw(message)
        assert (await rig.until("session.updated", "error"))[-1] == "session.updated"
        assert rig.last("session.updated")["session"]["model"] == "test"  # a base model is ignored


async def test_another_model_is_refused(rig: Rig) -> None:
    rig.send_raw(update(model="my-other-deployment", instructions="Be kind."))
    assert (await rig.refusal())["param"] == "session.model"
