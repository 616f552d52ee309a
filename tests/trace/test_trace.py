"""A recorded session is the live session again: turns, audio, settings, latency; parts and redacted copies of it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rtnb
from rtnb.errors import TraceError
from rtnb.protocol import events, wire
from rtnb.trace import Trace
from tests.trace.conftest import CANARY, Talk

ROOT = Path(__file__).resolve().parents[2]
READ = """
import json, sys, rtnb
from tests.trace.conftest import facts_of
trace = rtnb.Trace(sys.argv[1])
print(json.dumps(facts_of(trace.rows(), trace.turns, trace.settings, trace.latency)))
"""


def test_what_the_user_said_and_wrote_is_a_case(trace: Trace, talk: Talk, tmp_path: Path) -> None:
    (case,) = rtnb.cases([trace.to_case(tmp_path, id="weather")])
    assert (case.id, [turn.text for turn in case.user]) == ("weather", ["", "", "Good bye!"])
    for turn, text in zip(case.user, ("What is the weather in Oslo?", "Count to five please!"), strict=False):
        heard, rate_hz = rtnb.audio.read_wav(turn.audio)
        said = talk.simulator.speech(text).audio
        likeness = np.correlate(heard, said, "valid").max() / np.linalg.norm(said) / np.linalg.norm(heard)
        assert rate_hz == 24_000
        assert likeness > 0.98, text  # G.711 in between
        more_s = (len(heard) - len(said)) / rate_hz
        assert 0 < more_s < 1.5, "margins, prefix padding and the pause of 0.6 s, and nothing of the other turn"


def test_a_fresh_process_reads_what_the_live_session_knew(talk: Talk) -> None:
    command = [sys.executable, "-c", READ, str(talk.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    read = json.loads(done.stdout)
    assert read == talk.facts()
    assert {turn["status"] for turn in read["turns"]} >= {"complete", "interrupted"}


def test_the_rows_are_the_rows_of_the_log(talk: Talk, trace: Trace) -> None:
    rows = [row for row in trace.rows() if CANARY not in wire.encode(talk.log[row.number].event)]
    assert len(talk.log) - 15 < len(rows) < len(talk.log)
    assert rows == [talk.log[row.number] for row in rows]
    assert [row.type for row in trace.events] == [row.type for row in talk.log]
    assert list(trace.events.to_frame().t_ms) == list(talk.log.to_frame().t_ms)


def test_settings_change_over_time(trace: Trace) -> None:
    times_ms = trace.settings[1][0], trace.duration_ms
    waits_ms = [getattr(trace.settings_at(t_ms).turn_detection, "silence_duration_ms", 0) for t_ms in times_ms]
    assert waits_ms == [200, 300]
    assert trace.settings_at(-1.0).turn_detection is rtnb.protocol.UNSET


def test_the_heard_track_ends_where_the_user_interrupted(trace: Trace) -> None:
    cut = next(turn for turn in trace.turns if turn.status == "interrupted")
    assert np.any(trace.heard_audio.read(cut.start_ms, cut.stop_ms))
    assert not np.any(trace.heard_audio.read(cut.stop_ms + 1, cut.stop_ms + 100))
    assert np.any(trace.model_audio.read(cut.stop_ms + 1, cut.stop_ms + 1000))


def test_a_track_read_in_parts_by_several_threads_is_the_track_read_whole(trace: Trace) -> None:
    with ThreadPoolExecutor(4) as pool:
        for track in (trace.user_audio, trace.model_audio, trace.heard_audio):
            whole = np.asarray(track)
            parts = list(pool.map(track.__getitem__, [slice(at, at + 997) for at in range(0, len(track), 997)]))
            assert np.abs(np.concatenate(parts) - whole).max() < 1e-3  # G.711 is resampled part by part
            assert len(whole) == len(track) == round(24 * trace.duration_ms)
    assert trace.stereo().shape == (len(track), 2)


def test_a_part_has_its_own_clock_and_can_be_saved(talk: Talk, trace: Trace, tmp_path: Path) -> None:
    part = trace.cut(1000, 4000)
    part.save(tmp_path / "part.rtnb")
    with Trace(tmp_path / "part.rtnb") as again:
        assert again.duration_ms == part.duration_ms == 3000
        assert [replace(turn, index=0) for turn in again.turns] == [replace(turn, index=0) for turn in part.turns]
        # G.711 is resampled with what lies beside it: up to 20 ms from the edges, the file has less of that.
        assert np.abs(again.stereo() - part.stereo())[480:-480].max() < 1e-6
        assert again.log.to_frame().t_ms.min() >= 0
    assert np.abs(part.stereo() - trace.stereo()[24_000:96_000]).max() < 1e-3
    starts_ms = {turn.item_id: turn.start_ms - 1000 for turn in trace.turns}
    assert [turn.start_ms for turn in part.turns] == [starts_ms[turn.item_id] for turn in part.turns]
    whole = trace.turns[-1]
    assert whole.start_ms > 4000
    assert whole.text not in part.transcript
    assert whole.text.encode() not in zipfile.ZipFile(tmp_path / "part.rtnb").read("events.jsonl")
    assert (tmp_path / "part.rtnb").stat().st_size < talk.path.stat().st_size


def test_a_part_must_have_a_length(trace: Trace) -> None:
    with pytest.raises(TraceError, match="cannot cut from 5 to 5 ms"):
        trace.cut(5, 5)


@pytest.mark.parametrize("audio", ["silence", "tone"])
def test_nobody_is_heard_or_read_in_a_redacted_copy(trace: Trace, tmp_path: Path, audio: str) -> None:
    copy = trace.redacted(audio=audio, text=lambda text: "x" * len(text))  # type: ignore[arg-type]
    copy.save(tmp_path / "copy.rtnb")
    text = zipfile.ZipFile(tmp_path / "copy.rtnb").read("events.jsonl").decode()
    for word in ("weather", "Oslo", "five", "bye", "no language model"):
        assert word not in text.replace("get_weather", "")
    assert [(turn.start_ms, turn.role) for turn in copy.turns] == [(turn.start_ms, turn.role) for turn in trace.turns]
    assert set("".join(turn.text for turn in copy.turns if turn.role == "assistant")) == {"x"}
    assert {row.event.delta for row in copy.events.filter("*transcript.delta")} == {""}  # a name may lie across two
    assert bool(np.any(copy.stereo())) == (audio == "tone")
    assert copy.manifest["audible"] == []
    assert "whisper-1" in text
    copy.close()


def test_an_unknown_replacement_is_refused(trace: Trace) -> None:
    with pytest.raises(TraceError, match="audio is 'noise'; allowed are 'silence', 'tone' and None"):
        trace.redacted(audio="noise")  # type: ignore[arg-type]


def test_no_secret_is_in_the_file(talk: Talk) -> None:
    archive = zipfile.ZipFile(talk.path)
    for name in archive.namelist():
        assert CANARY.encode() not in archive.read(name)
    assert CANARY.encode() not in talk.path.read_bytes()
    assert any(CANARY in wire.encode(row.event) for row in talk.log)  # the live session has it
    archive.close()


def test_the_manifest_names_target_tracks_settings_and_cost_is_that_of_the_log(talk: Talk, trace: Trace) -> None:
    meter = rtnb.analysis.cost.CostMeter()
    meter.feed(talk.log)
    assert trace.cost.charges == meter.charges
    manifest = trace.manifest
    assert manifest["complete"]
    assert manifest["target"]["model"] == "rtnb-simulator"
    sent = [len(row.event.audio) for row in talk.log if isinstance(row.event, events.InputAudioBufferAppend)]
    assert manifest["tracks"]["user"] == {"bytes": sum(sent)}
    assert len(manifest["settings"]) == len(trace.settings)
    assert manifest["dropped"] == {"events": 0, "audio_bytes": 0}


def test_an_interruption_is_in_the_interaction(trace: rtnb.Trace) -> None:
    # It comes half a second after the turn before, and is answered in about one tick of the default length.
    frame = rtnb.interaction(trace, gap_s=0.3, tick_s=0.04).to_frame()
    (barge_in,) = frame[frame["kind"] == "interruption"].to_dict("records")
    cut = next(turn for turn in trace.turns if turn.status == "interrupted")
    assert barge_in["outcome"] == "yield"
    assert abs(barge_in["start_s"] + barge_in["latency_s"] - cut.stop_ms / 1000) <= 0.2
    assert trace.interaction.user.shape == (len(trace.user_audio),)
