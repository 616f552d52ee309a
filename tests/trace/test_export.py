"""Files for other programs, read back by those programs' own readers."""

from __future__ import annotations

import base64
import json
import sys
import wave
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
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail, Response, StatusDetails
from rtnb.trace import Trace
from tests.trace.rows import log_of, written


def test_audacity_labels_read_back(trace: Trace, tmp_path: Path) -> None:
    labels = read_labels(trace.export(tmp_path / "talk.txt"))
    turns = [turn for turn in trace.turns if turn.text]
    assert [one.label for one in labels] == [f"{turn.role}: {turn.text}" for turn in turns]
    assert [one.start_ms for one in labels] == pytest.approx([turn.start_ms for turn in turns], abs=0.001)
    assert [one.end_ms for one in labels] == pytest.approx([turn.stop_ms for turn in turns], abs=0.001)


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_each_tier_of_a_textgrid_reads_back(trace: Trace, tmp_path: Path, role: str) -> None:
    labels = read_labels(trace.export(tmp_path / "talk.TextGrid"), tier=role)
    turns = [turn for turn in trace.turns if turn.role == role and turn.text]
    assert [one.label for one in labels] == [turn.text for turn in turns]
    assert [one.end_ms for one in labels] == pytest.approx([turn.stop_ms for turn in turns], abs=0.001)


def test_tiers_of_a_textgrid_cover_the_whole_axis_without_overlap(trace: Trace, tmp_path: Path) -> None:
    lines = trace.export(tmp_path / "talk.textgrid").read_text(encoding="utf-8").splitlines()
    end_s, at = float(lines[4]), 7
    assert end_s >= trace.duration_ms / 1000 - 1e-6
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
    turns.sort(key=lambda turn: turn.start_ms)
    assert len(cues) == len(turns)
    assert cues[0].content == "You: What is the weather in Oslo?"
    assert [cue.start.total_seconds() for cue in cues] == pytest.approx([t.start_ms / 1000 for t in turns], abs=0.001)
    assert trace.export(tmp_path / "talk.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n")


def test_audio_is_the_user_left_and_the_heard_model_right(trace: Trace, tmp_path: Path) -> None:
    with wave.open(str(trace.export(tmp_path / "talk.wav")), "rb") as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 24_000, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32_768
    assert len(samples) == len(trace.stereo())
    assert np.abs(samples - trace.stereo()).max() < 1e-3  # G.711 is resampled part by part
    again, rate_hz = soundfile.read(trace.export(tmp_path / "talk.flac"))
    assert rate_hz == 24_000
    assert np.array_equal(again, samples)


def test_events_as_csv_read_back(trace: Trace, tmp_path: Path) -> None:
    frame = pd.read_csv(trace.export(tmp_path / "talk.csv"), index_col="index")
    assert list(frame.type) == [row.type for row in trace.events]


def test_events_as_parquet_read_back(trace: Trace, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pandas needs it for Parquet files")
    frame = pd.read_parquet(trace.export(tmp_path / "talk.parquet"))
    pd.testing.assert_frame_equal(frame, trace.events.to_frame())
    assert frame.attrs == trace.events.to_frame().attrs


def test_a_format_that_needs_another_package_says_which(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # not installed
    with pytest.raises(TraceError, match=r"\.parquet needs another package") as caught:
        trace.export(tmp_path / "talk.parquet")
    assert "install pyarrow" in caught.value.__notes__[0]


@pytest.mark.parametrize("name", ["talk.mp3", "talk"])
def test_an_unknown_suffix_names_the_allowed_ones(trace: Trace, tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match=r"cannot export to .*; allowed: \.txt, \.textgrid"):
        trace.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------


def spans_of(trace: Trace, folder: Path) -> list[Any]:
    """The spans as a collector reads them. Their JSON has ids in hexadecimal, protobuf's own has base64."""
    request = json.loads(trace.export(folder / "talk.json").read_text())
    for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    read = json_format.ParseDict(request, ExportTraceServiceRequest(), ignore_unknown_fields=False)
    return list(read.resource_spans[0].scope_spans[0].spans)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def test_spans_are_valid_for_a_collector_and_hold_no_texts(trace: Trace, tmp_path: Path) -> None:
    spans = spans_of(trace, tmp_path)
    assert all(len(span.trace_id) == 16 and len(span.span_id) == 8 and span.name for span in spans)
    assert len({span.span_id for span in spans}) == len(spans)
    assert all(1.7e18 < span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    names = [span.name for span in spans]
    assert names.count("user_speech") == 2
    assert names.count("realtime_inference rtnb-simulator") == 4
    assert names.count("execute_tool get_weather") == 1
    assert not any(word in (tmp_path / "talk.json").read_text() for word in ("Oslo", "rain", "bye"))


def test_an_answer_carries_the_names_of_the_conventions(trace: Trace, tmp_path: Path) -> None:
    answers = [span for span in spans_of(trace, tmp_path) if span.name.startswith("realtime_inference")]
    found = [attributes(span) for span in answers]
    spoken = next(one for one in found if one.get("gen_ai.usage.audio.output_tokens"))
    assert {span.kind for span in answers} == {answers[0].SPAN_KIND_CLIENT}
    assert spoken["gen_ai.operation.name"] == "realtime_inference"
    assert spoken["gen_ai.request.model"] == "rtnb-simulator"
    assert spoken["gen_ai.output.type"] == "speech"
    assert spoken["gen_ai.realtime_session.id"] == trace.settings_at(1e9).id
    charges = trace.cost.to_frame()
    total = sum(one["gen_ai.usage.input_tokens"] + one["gen_ai.usage.output_tokens"] for one in found)
    assert total == charges[charges.what == "response"].tokens.sum()


def test_a_tool_call_is_a_child_of_its_answer(trace: Trace, tmp_path: Path) -> None:
    spans = spans_of(trace, tmp_path)
    (tool,) = [span for span in spans if span.name.startswith("execute_tool")]
    (parent,) = [span for span in spans if span.span_id == tool.parent_span_id]
    assert parent.name.startswith("realtime_inference")
    assert attributes(tool)["gen_ai.tool.name"] == "get_weather"
    assert attributes(tool)["gen_ai.tool.call.id"].startswith("call_")


def test_a_span_says_how_its_answer_ended(tmp_path: Path) -> None:
    limit = StatusDetails(error=ErrorDetail(code="rate_limit_exceeded", message="Wait."))
    ends = [("failed", limit), ("cancelled", StatusDetails(reason="turn_detected")), ("completed", None)]
    rows: list[tuple[float, events.Event]] = []
    for at_s, (status, details) in enumerate(ends):
        rows.append((at_s, events.ResponseCreated(response=Response(id=status, status="in_progress"))))
        response = Response(id=status, status=status, status_details=details)
        rows.append((at_s + 0.5, events.ResponseDone(response=response)))
    with Trace(written(tmp_path / "talk.rtnb", log_of(*rows))) as trace:
        failed, *others = spans_of(trace, tmp_path)
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "rate_limit_exceeded"
    reasons = [attributes(span)["gen_ai.response.finish_reasons"].values[0].string_value for span in others]
    assert reasons == ["turn_detected", "stop"]
    assert {span.status.code for span in others} == {failed.status.STATUS_CODE_UNSET}


def test_a_cell_without_widgets_shows_the_line_of_the_trace(trace: Trace) -> None:
    bundle = trace._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"] == repr(trace)
    assert "application/vnd.jupyter.widget-view+json" in data
