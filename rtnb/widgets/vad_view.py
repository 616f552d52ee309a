"""`VadView`: one recording over time, and all recordings over the settings of the server VAD.

The page has the speech probabilities of the shown recording, so a dragged threshold is redrawn without the kernel. The
figures of all recordings come from here. The messages are listed in vad_view.js.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import traitlets

from rtnb._loop import shared_loop
from rtnb.analysis.bench import KNOBS, MAPPED, Bench
from rtnb.analysis.decimate import min_max
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import METRICS
from rtnb.audio import encode_pcm16, ms_to_samples, resample
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.widgets._base import bundle, styles
from rtnb.widgets.channel import StreamWidget

BIN_MS: Final = 4
"""Shortest stretch of audio that one pair of the waveform covers."""
MAX_BINS: Final = 200_000
"""Pairs sent to the page, 0.8 MB; a longer recording (over 13 min) gets longer bins."""
MAX_CLIP_MS: Final = 10_000.0
"""Longest clip that the page may play at a time."""
_MAX_NAME: Final = 80
_PLAYED_HZ: Final = 24_000


class VadView(StreamWidget):
    """Sliders, waveform, speech probabilities, maps of all settings, and the buttons of the VAD lab.

    Parameters
    ----------
    bench : Bench
        The recordings.
    run_action : callable
        Awaited with the action of a pressed button, on the background loop: "use", "apply", "compare",
        "record_room_tone" or "record_turn".
    **traits
        Any of its traits.
    """

    _esm = bundle("vad_view.js")
    _css = styles("vad_lab.css")

    threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="0 to 1. Higher needs clearer speech.").tag(sync=True)
    silence_duration_ms = traitlets.Int(200, min=0, help="Silence that ends a turn, ms.").tag(sync=True)
    prefix_padding_ms = traitlets.Int(300, min=0, help="Audio kept from before the start, ms.").tag(sync=True)
    metric = traitlets.Enum(tuple(MAPPED), "cut_off_rate", help="Metric of the map.").tag(sync=True)
    enabled = traitlets.List(traitlets.Unicode(), help="Actions whose buttons can be pressed.").tag(sync=True)
    status = traitlets.Dict({"text": "", "problem": False}, help="Line below the buttons.").tag(sync=True)

    def __init__(self, bench: Bench, run_action: Callable[[str], Coroutine[Any, Any, None]], **traits: Any) -> None:
        super().__init__(**traits)
        self.bench = bench
        self.index = 0
        """Position of the shown recording on the bench."""
        self._run_action = run_action
        self._service: list[tuple[int, int | None]] = []
        self.open_stream(self._on_message)
        self._stream.on_page(self._on_page)

    @property
    def setting(self) -> ServerVad:
        """The shown setting."""
        return ServerVad(**{name: getattr(self, name) for name in KNOBS})

    @property
    def recording(self) -> Recording | None:
        """The shown recording; None without any."""
        return self.bench.recordings[self.index] if self.bench.recordings else None

    def show(self, index: int) -> None:
        """Show another recording."""
        if 0 <= index < len(self.bench.recordings):
            self.index = index
            self._service = []
            self._publish_recording()

    def refresh(self) -> None:
        """Show the current contents of the bench."""
        self._publish_recording()
        self._publish_grid()

    def show_service(self, starts_ms: Iterable[int], stops_ms: Iterable[int]) -> None:
        """Show starts and stops observed for this recording, in its own time."""
        stops = sorted(stops_ms)
        self._service = [(at, next((stop for stop in stops if stop > at), None)) for at in sorted(starts_ms)]
        self._stream.publish("service", {"segments": self._service})

    def _publish_recording(self) -> None:
        recording = self.recording
        if recording is None:
            return
        bin_ms = max(BIN_MS, math.ceil(recording.duration_ms / MAX_BINS))
        samples_per_bin = ms_to_samples(bin_ms, rate_hz=recording.rate_hz)
        peaks = min_max(np.frombuffer(encode_pcm16(recording.audio), "<i2"), samples_per_bin=samples_per_bin)
        header = {
            "index": self.index,
            "names": [one.name[:_MAX_NAME] for one in self.bench.recordings],
            "bin_ms": 1000 * samples_per_bin / recording.rate_hz,
            "duration_ms": recording.duration_ms,
            "turns": [{"start_ms": turn.start_ms, "end_ms": turn.end_ms} for turn in recording.turns],
            "pauses": [pause for turn in recording.turns for pause in turn.pauses],
            "constants": asdict(self.bench.constants),
        }
        probabilities = np.asarray(self.bench.probabilities(self.index), np.float32)
        self._stream.publish("recording", header, [peaks.tobytes(), probabilities.tobytes()])
        self._stream.publish("service", {"segments": self._service})

    def _publish_grid(self) -> None:
        sweep = self.bench.sweep
        if sweep is None:
            return
        marks = {"default": SERVER_VAD_DEFAULTS, "recommended": self.bench.recommended()}
        header = {
            "metrics": [{"name": name, "label": label, "unit": METRICS[name].unit} for name, label in MAPPED.items()],
            "thresholds": sweep.thresholds.tolist(),
            "silences_ms": sweep.silences_ms.tolist(),
            "n_turns": sweep.n_turns,
            "front": self.bench.front(),
            "marks": {who: one and {name: getattr(one, name) for name in KNOBS[:2]} for who, one in marks.items()},
        }
        self._stream.publish("grid", header, [grid.tobytes() for grid in self.bench.grids()])

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self.refresh()

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        if kind == "show":
            self.show(int(header["index"]))
        elif kind == "figures":
            advice = self.bench.recommendation
            lines = () if advice is None else (advice.verdict, *advice.advice[:1])
            return {"rows": self.bench.figures(*(float(header[name]) for name in KNOBS)), "recommendation": lines}
        elif kind == "play" and (recording := self.recording) is not None:
            spans_ms = header["start_ms"], min(header["span_ms"], MAX_CLIP_MS)
            first, count = (ms_to_samples(ms, rate_hz=recording.rate_hz) for ms in spans_ms)
            clip = resample(
                recording.audio[first : first + count], from_rate_hz=recording.rate_hz, to_rate_hz=_PLAYED_HZ
            )
            self._stream.publish("clip", {"view": header["view"]}, [encode_pcm16(clip)])
        elif kind == "action":
            shared_loop().submit(self._run_action(header["name"]))
        return None
