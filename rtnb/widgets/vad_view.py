"""`VadView`: one recording over time, and all recordings over the settings of the server VAD.

The page draws; segments, figures and maps are computed here, on the background loop. The messages are listed in
vad_view.js.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable
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
from rtnb.vad import FRAME_MS
from rtnb.widgets._base import bundle, styles
from rtnb.widgets.channel import StreamWidget

BIN_MS: Final = 4
"""Shortest stretch of audio that one pair of the waveform covers."""
MAX_BINS: Final = 200_000
"""Pairs sent to the page, 0.8 MB; a longer recording (over 13 min) gets longer bins."""
MAX_SEGMENTS: Final = 5_000
"""Segments sent to the page; the rest of a recording with more is shown without."""
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
        self._stream.on_page(lambda page_id, change: self.refresh() if change == "joined" else None)

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
        constants = self.bench.constants
        bin_ms = max(BIN_MS, math.ceil(recording.duration_ms / MAX_BINS))
        samples_per_bin = ms_to_samples(bin_ms, rate_hz=recording.rate_hz)
        peaks = min_max(np.frombuffer(encode_pcm16(recording.audio), "<i2"), samples_per_bin=samples_per_bin)
        header = {
            "index": self.index,
            "names": [one.name[:_MAX_NAME] for one in self.bench.recordings],
            "bin_ms": 1000 * samples_per_bin / recording.rate_hz,
            "duration_ms": recording.duration_ms,
            "frame_ms": FRAME_MS,
            "turns": [(turn.start_ms, turn.end_ms) for turn in recording.turns],
            "pauses": [pause for turn in recording.turns for pause in turn.pauses],
            "levels": [(constants.local(k / 100), constants.release(k / 100)) for k in range(101)],
        }
        probabilities = np.asarray(self.bench.probabilities(self.index), np.float32)
        self._stream.publish("recording", header, [peaks.tobytes(), probabilities.tobytes()])
        self._stream.publish("service", {"segments": self._service})

    def _publish_grid(self) -> None:
        sweep = self.bench.sweep
        if sweep is None:
            return
        marks = {"■": SERVER_VAD_DEFAULTS, "◆": self.bench.recommended()}
        maps = self.bench.maps()
        header = {
            "metrics": [{"name": name, "label": label, "unit": METRICS[name].unit} for name, label in MAPPED.items()],
            "thresholds": sweep.thresholds.tolist(),
            "silences_ms": sweep.silences_ms.tolist(),
            "n_turns": sweep.n_turns,
            "marks": {sign: self.bench.position(one) for sign, one in marks.items() if one is not None},
            "maps": [{name: getattr(one, name) for name in ("x_ticks", "y_ticks", "stops", "columns")} for one in maps],
        }
        arrays = [*self.bench.grids(), *(axis.astype(np.float32) for one in maps for axis in (one.x, one.y))]
        self._stream.publish("grid", header, [array.tobytes() for array in arrays])

    def _figures(self, setting: ServerVad) -> dict[str, Any]:
        bench, index, advice = self.bench, self.index, self.bench.recommendation
        segments = bench.segments(index, setting)[:MAX_SEGMENTS] if bench.recordings else ()
        return {
            "index": index,
            "position": bench.position(setting),
            "segments": [(one.audio_start_ms, one.audio_end_ms) for one in segments],
            "cut_offs": bench.cut_offs(index, segments) if bench.recordings else [],
            "rows": bench.figures(*(float(getattr(setting, name)) for name in KNOBS)),
            "recommendation": [] if advice is None else [advice.verdict, *advice.advice[:1]],
        }

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Awaitable[dict[str, Any]] | None:
        if kind == "show":
            self.show(int(header["index"]))
        elif kind == "figures":
            return asyncio.to_thread(self._figures, ServerVad(**header))  # up to 0.1 s for 2 h of audio
        elif kind == "play" and (recording := self.recording) is not None:
            rate_hz, span_ms = recording.rate_hz, min(header["span_ms"], MAX_CLIP_MS)
            first, count = (ms_to_samples(ms, rate_hz=rate_hz) for ms in (header["start_ms"], span_ms))
            clip = resample(recording.audio[first : first + count], from_rate_hz=rate_hz, to_rate_hz=_PLAYED_HZ)
            self._stream.publish("clip", {"view": header["view"]}, [encode_pcm16(clip)])
        elif kind == "action":
            shared_loop().submit(self._run_action(header["name"]))
        return None
