"""Files for other programs, read back by those programs' own readers."""

from __future__ import annotations

import base64
import json
import sys
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import srt
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rtnb.analysis import read_labels
from rtnb.errors import RateLimited, TraceError
from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.trace import Trace, save_trace
from rtnb.trace.otlp import to_otlp
from tests.client.virtual import run_virtual
from tests.simulator.rig import spoken
from tests.trace.talk import near_session

LONG = "tell me a long story"
STEPS = [
    {"when": {"text": "weather"}, "call": {"name": "get_weather", "arguments": {"city": "Lund"}}},
    {"when": {"text": "long"}, "say": 'This "story" has many words <img src=x onerror=alert(1)> and goes on and on.'},
]


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Rain in {city}"


async def talk(path: Path) -> None:
    """A spoken turn that is interrupted, a typed turn with a tool call, and a refused update."""
    exact = ExactTranscriber()
    exact.learn(LONG, spoken(LONG))
    exact.learn("stop", spoken("stop"))
    settings = {"transcription": "whisper-1", "tools": [get_weather]}
    async with near_session(
        settings, latency="realistic,audio_rate=1", transcriber=exact, scenario={"steps": STEPS}
    ) as session:
        await session.say(spoken(LONG), rate_hz=24_000, respond=False)
        await session.say(spoken("stop"), rate_hz=24_000)
        await session.ask("What is the weather?")
        save_trace(session, path)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    path = tmp_path_factory.mktemp("export") / "talk.rtnb"
    run_virtual(talk(path))
    with Trace(path) as trace:
        yield trace


def said(trace: Trace, role: str) -> list[Any]:
    return [turn for turn in trace.turns if turn.role == role and turn.text]


def test_audacity_labels_read_back(trace: Trace, tmp_path: Path) -> None:
    labels = read_labels(trace.export(tmp_path / "talk.txt"))
    turns = [turn for turn in trace.turns if turn.text]
    assert [one.label for one in labels] == [f"{turn.role}: {turn.text}" for turn in turns]
    assert [one.start_ms for one in labels] == pytest.approx([turn.start_ms for turn in turns], abs=0.001)
    assert [one.end_ms for one in labels] == pytest.approx([turn.stop_ms for turn in turns], abs=0.001)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_each_tier_of_a_textgrid_reads_back(trace: Trace, tmp_path: Path, role: str) -> None:
    labels = read_labels(trace.export(tmp_path / "talk.TextGrid"), tier=role)
    turns = said(trace, role)
    assert [one.label for one in labels] == [turn.text for turn in turns]
    assert [one.end_ms for one in labels] == pytest.approx([turn.stop_ms for turn in turns], abs=0.001)


def test_tiers_of_a_textgrid_cover_the_whole_axis_without_overlap(trace: Trace, tmp_path: Path) -> None:
    lines = trace.export(tmp_path / "talk.textgrid").read_text(encoding="utf-8").splitlines()
    end_s = float(lines[4])
    assert end_s >= trace.duration_ms / 1000 - 1e-6
    at = 7
    for _ in range(int(lines[6])):
        count, at = int(lines[at + 4]), at + 5
        edges = [(float(lines[at + 3 * k]), float(lines[at + 3 * k + 1])) for k in range(count)]
        at += 3 * count
        assert (edges[0][0], edges[-1][1]) == (0, end_s)
        assert all(one[1] == two[0] for one, two in pairwise(edges))
        assert all(start < stop for start, stop in edges)


def test_subtitles_are_read_by_a_library(trace: Trace, tmp_path: Path) -> None:
    cues = list(srt.parse(trace.export(tmp_path / "talk.srt").read_text(encoding="utf-8")))
    turns = [turn for turn in trace.turns if turn.text and turn.role in ("user", "assistant")]
    assert len(cues) == len(turns)
    assert cues[0].content == f"You: {LONG}"
    assert [cue.start.total_seconds() for cue in cues] == pytest.approx([t.start_ms / 1000 for t in turns], abs=0.001)
    assert trace.export(tmp_path / "talk.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n")


def test_audio_is_the_user_left_and_the_heard_model_right(trace: Trace, tmp_path: Path) -> None:
    with wave.open(str(trace.export(tmp_path / "talk.wav")), "rb") as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 24_000, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32_768
    stereo = trace.stereo()
    assert len(samples) == len(stereo)
    assert np.abs(samples - stereo).max() < 1e-4
    again, rate_hz = soundfile.read(trace.export(tmp_path / "talk.flac"))
    assert rate_hz == 24_000
    assert np.array_equal(again, samples)


def test_events_as_csv_read_back(trace: Trace, tmp_path: Path) -> None:
    frame = pd.read_csv(trace.export(tmp_path / "talk.csv"), index_col="index")
    assert len(frame) == len(trace.events)
    assert list(frame.type) == [row.type for row in trace.events]


def test_a_format_that_needs_another_package_says_which(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # not installed
    with pytest.raises(TraceError, match=r"\.parquet needs another package") as caught:
        trace.export(tmp_path / "talk.parquet")
    assert "install pyarrow" in caught.value.__notes__[0]


def test_events_as_parquet_read_back(trace: Trace, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pandas needs it for Parquet files")
    frame = pd.read_parquet(trace.export(tmp_path / "talk.parquet"))
    pd.testing.assert_frame_equal(frame, trace.events.to_frame())
    assert frame.attrs == trace.events.to_frame().attrs


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------


def parsed(request: dict[str, Any]) -> Any:
    """A request as the collector's protocol reads it. Its JSON has ids in hexadecimal, protobuf's own has base64."""
    request = json.loads(json.dumps(request))
    for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(request, ExportTraceServiceRequest(), ignore_unknown_fields=False)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def test_spans_are_valid_for_a_collector(trace: Trace, tmp_path: Path) -> None:
    (resource,) = parsed(json.loads(trace.export(tmp_path / "talk.json").read_text())).resource_spans
    spans = resource.scope_spans[0].spans
    assert all(len(span.trace_id) == 16 and len(span.span_id) == 8 and span.name for span in spans)
    assert len({span.span_id for span in spans}) == len(spans)
    assert all(1.7e18 < span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    names = [span.name for span in spans]
    assert names.count("user_speech") == 2
    assert names.count("realtime_inference gpt-realtime") == 4
    assert names.count("execute_tool get_weather") == 1


def test_an_answer_carries_the_names_of_the_conventions(trace: Trace) -> None:
    spans = parsed(to_otlp(trace)).resource_spans[0].scope_spans[0].spans
    answers = [span for span in spans if span.name.startswith("realtime_inference")]
    first = attributes(answers[0])
    assert answers[0].kind == answers[0].SPAN_KIND_CLIENT
    assert first["gen_ai.operation.name"] == "realtime_inference"
    assert first["gen_ai.request.model"] == "gpt-realtime"
    assert first["gen_ai.output.type"] == "speech"
    assert first["gen_ai.realtime_session.id"] == trace.settings_at(1e9).id
    assert [value.string_value for value in first["gen_ai.response.finish_reasons"].values] == ["turn_detected"]
    usage = [attributes(span) for span in answers]
    charges = trace.cost.to_frame()
    total = sum(one["gen_ai.usage.input_tokens"] + one["gen_ai.usage.output_tokens"] for one in usage)
    assert total == charges[charges.what == "response"].tokens.sum()
    assert usage[0]["gen_ai.usage.audio.output_tokens"] > 0


def test_a_tool_call_is_a_child_of_its_answer(trace: Trace) -> None:
    spans = parsed(to_otlp(trace)).resource_spans[0].scope_spans[0].spans
    (tool,) = [span for span in spans if span.name.startswith("execute_tool")]
    (parent,) = [span for span in spans if span.span_id == tool.parent_span_id]
    assert parent.name.startswith("realtime_inference")
    assert attributes(tool)["gen_ai.tool.name"] == "get_weather"
    assert attributes(tool)["gen_ai.tool.call.id"].startswith("call_")


def test_the_spans_hold_no_texts(trace: Trace) -> None:
    spans = json.dumps(to_otlp(trace))
    assert not any(word in spans for word in ("story", "Rain in Lund", "Lund"))


def test_a_failed_answer_is_a_failed_span(tmp_path: Path) -> None:
    async def fail() -> None:
        async with near_session(latency="fast", faults=["failed=rate_limit_exceeded@1"]) as session:
            with pytest.raises(RateLimited):
                await session.ask("Hello")
            save_trace(session, tmp_path / "failed.rtnb")

    run_virtual(fail())
    with Trace(tmp_path / "failed.rtnb") as failed:
        (span,) = parsed(to_otlp(failed)).resource_spans[0].scope_spans[0].spans
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "rate_limit_exceeded"


def test_a_cell_without_widgets_shows_the_line_of_the_trace(trace: Trace) -> None:
    bundle = trace._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"] == repr(trace)
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize("name", ["talk.mp3", "talk"])
def test_an_unknown_suffix_names_the_allowed_ones(trace: Trace, tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match=r"cannot export to .*; allowed: \.txt, \.textgrid"):
        trace.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
