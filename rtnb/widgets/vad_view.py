"""`VadView`: the picture of the VAD lab. One recording in time, all of them over the settings.

Kernel to page and back: see vad_view.js. The page has the probabilities of the shown recording, so that what is dragged
is redrawn without the kernel; the figures of all recordings come from here.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from traitlets import Enum, Float, Int

from rtnb.analysis.bench import KNOBS, MAPPED, Bench
from rtnb.analysis.decimate import min_max
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import METRICS
from rtnb.audio import encode_pcm16, ms_to_samples, resample
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.widgets._base import bundle
from rtnb.widgets.channel import StreamWidget

BIN_MS: Final = 4
"""What one column of the waveform stands for at the most."""
_PLAYED_HZ: Final = 24_000
_HERE: Final = Path(__file__).parent


class VadView(StreamWidget):
    """Waveform, probabilities, labels, what model and service tell; maps of all settings.

    Parameters
    ----------
    bench : Bench
        The recordings.
    """

    _esm = bundle("vad_view.js")

    threshold = Float(0.5, min=0.0, max=1.0, help="0 to 1. Higher needs clearer speech.").tag(sync=True)
    silence_duration_ms = Int(200, min=0, help="ms. Longer cuts fewer people off and answers later.").tag(sync=True)
    prefix_padding_ms = Int(300, min=0, help="ms of sound kept from before the start.").tag(sync=True)
    metric = Enum(tuple(MAPPED), "cut_off_rate", help="What the map shows.").tag(sync=True)

    def __init__(self, bench: Bench, **traits: Any) -> None:
        super().__init__(**traits)
        self.bench = bench
        self.index = 0
        """Which recording is shown."""
        self._service: dict[str, Any] = {"events": []}
        self.open_stream(self._on_message)
        self._stream.on_page(self._on_page)

    @property
    def point(self) -> ServerVad:
        """The setting that is shown."""
        return ServerVad(**{name: getattr(self, name) for name in KNOBS})

    @property
    def recording(self) -> Recording | None:
        """The recording that is shown."""
        return self.bench.recordings[self.index] if self.bench.recordings else None

    def show(self, index: int) -> None:
        """Show another recording."""
        if 0 <= index < len(self.bench.recordings):
            self.index = index
            self._service = {"events": []}
            self._show_recording()

    def refresh(self) -> None:
        """Show what is on the bench by now."""
        self._show_recording()
        self._show_grid()

    def show_service(self, events: list[dict[str, float | None]]) -> None:
        """Show what the service told of the shown recording: [{start_ms, stop_ms}] in its own time."""
        self._service = {"events": events}
        self._stream.publish("service", self._service)

    # --- to the page --------------------------------------------------------------------------------------------------

    def _show_recording(self) -> None:
        recording = self.recording
        if recording is None:
            return
        pcm = np.frombuffer(encode_pcm16(recording.audio), "<i2")
        peaks = min_max(pcm, samples_per_bin=ms_to_samples(BIN_MS, rate_hz=recording.rate_hz))
        header = {
            "index": self.index,
            "names": [one.name for one in self.bench.recordings],
            "bin_ms": BIN_MS,
            "duration_ms": recording.duration_ms,
            "turns": [{"start_ms": turn.start_ms, "end_ms": turn.end_ms} for turn in recording.turns],
            "pauses": [pause for turn in recording.turns for pause in turn.pauses],
            "constants": asdict(self.bench.constants),
        }
        probabilities = np.asarray(self.bench.probabilities(self.index), np.float32)
        self._stream.publish("recording", header, [peaks.tobytes(), probabilities.tobytes()])
        self._stream.publish("service", self._service)

    def _show_grid(self) -> None:
        sweep = self.bench.sweep
        if sweep is None:
            return
        marks = {"default": SERVER_VAD_DEFAULTS, "recommended": self.bench.recommended()}
        names = KNOBS[:2]
        header = {
            "metrics": [{"name": name, "label": label, "unit": METRICS[name].unit} for name, label in MAPPED.items()],
            "thresholds": sweep.thresholds.tolist(),
            "silences_ms": sweep.silences_ms.tolist(),
            "n_turns": sweep.n_turns,
            "marks": {who: one and {name: getattr(one, name) for name in names} for who, one in marks.items()},
        }
        self._stream.publish("grid", header, [grid.tobytes() for grid in self.bench.grids()])

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self.refresh()

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        if kind == "show":
            self.show(int(header["index"]))
        elif kind == "point":
            advice = self.bench.recommendation
            words = ["", []] if advice is None else [advice.verdict, list(advice.advice[:1])]
            return {
                "rows": self.bench.figures(*(float(header[name]) for name in KNOBS)),
                "verdict": words[0],
                "advice": words[1],
            }
        elif kind == "play" and (recording := self.recording) is not None:
            first, count = (ms_to_samples(header[name], rate_hz=recording.rate_hz) for name in ("start_ms", "span_ms"))
            clip = recording.audio[first : first + count]
            clip = resample(clip, from_rate_hz=recording.rate_hz, to_rate_hz=_PLAYED_HZ)
            self._stream.publish("clip", {"view": header["view"]}, [encode_pcm16(clip)])
        return None
