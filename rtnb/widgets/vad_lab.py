"""`VadLab`: try turn detection settings on recordings, apply one to the session, and compare it with the service.

`rtnb.tuning.bench` computes; the page draws (`VadView`) and has plain widgets around that.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from html import escape
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import numpy as np
import traitlets

from rtnb._loop import shared_loop
from rtnb.analysis import Overlap, Recording, overlap_lab, plot_pareto, plot_sweep
from rtnb.analysis.calibration import TOLERANCE_MS
from rtnb.analysis.gaps import cut_offs
from rtnb.analysis.plots.deltas import draw_png
from rtnb.analysis.sweeping import SERVER_MODEL_V1
from rtnb.audio import RATE_HZ, encode_pcm16, ms_to_samples, resample
from rtnb.audio.decimate import min_max
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.tuning.bench import COLUMNS, Bench
from rtnb.tuning.calibration import SETTING, probe
from rtnb.vad import FRAME_MS, VadConstants
from rtnb.widgets._base import Widget, format_error
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.knobs import knobs_of
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.settings import Look, close_all, format_note

if TYPE_CHECKING:
    import pandas as pd

KNOBS: Final = {name: knobs_of("turn_detection")[name] for name in SETTING}
"""Knobs that make a setting."""
_KINDS: Final[dict[str, tuple[float, str, Callable[..., Recording]]]] = {
    "turn": (15.0, "Answer one question and think aloud: how do you get to work?", Recording.of_one_turn),
    "room tone": (10.0, "Say nothing.", Recording.of_room_tone),
}
"""Kinds of recordings: seconds, what to do meanwhile, and how the recording is made."""
COMPARED_S: Final = 20.0
"""Longest part of a recording that is played to the service (chosen)."""
START: Final = "Record the silent room first, then turns as people will speak them, pauses included."
THRESHOLDS: Final = [round(0.05 * k, 2) for k in range(1, 20)]
"""Thresholds that the overlaps are tried with."""
MAX_BINS: Final = 100_000
"""Pairs of lowest and highest sample that the page gets of a recording at most, 0.4 MB (chosen)."""
CLIP_MS: Final = 3_000
"""Length of a clip that the page plays."""
MAPS: Final = ("cut_off_rate", "delay_p50_ms", "delay_p90_ms", "no_fire_rate", "billed_tokens")
"""Metrics that the map of thresholds and silence durations can show: those that every sweep with turns knows."""


class VadView(Widget):
    """Waveform and speech probabilities of a recording, with a threshold to drag, and figures of all settings.

    Parameters
    ----------
    clip : callable
        Returns the audio of the shown recording from a time in ms on: `CLIP_MS` of PCM16 at 24 kHz.
    """

    threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="The line to drag.").tag(sync=True)
    recording: Any = traitlets.Dict(help="Shown recording with its labels.").tag(sync=True)
    maps: Any = traitlets.List(help="Address and text of the picture of each map.").tag(sync=True)
    figures: Any = traitlets.Dict(help="Effect of the shown setting.").tag(sync=True)
    service: Any = traitlets.List(help="Starts and stops of the service in this recording, ms.").tag(sync=True)

    def __init__(self, clip: Callable[[float], bytes]) -> None:
        super().__init__()
        self.on_msg(lambda _, message, buffers: self.send(message, [clip(message["play_ms"])]))


class VadLab(ipywidgets.VBox):  # type: ignore[misc]
    """Effect of every server VAD setting on recordings; choose a setting, apply it, compare it with the service.

    `threshold`, `silence_duration_ms` and `prefix_padding_ms` are the shown setting: traits, to be set, observed and
    linked. With a playground they are linked with its turn detection, both ways.

    Parameters
    ----------
    recordings : Recording or path, or iterable of them
        With labelled turns, see `rtnb.Recording`; at most 500, and 2 hours.
    session : Session or Playground, optional
        Target of *Apply to session* and *Compare with the service*; it may live on any event loop.
    microphone : Microphone, optional
        Source of new recordings; `close` leaves it open. Default: one that the lab makes and closes.
    constants : VadConstants
        Model of the service: `Calibration.constants` of a calibration.
    overlaps : iterable of Overlap, optional
        Labelled interruptions, coughs, echo …: adds a view of the clips that stop the assistant. *Apply to session*
        then applies a second threshold while the assistant speaks, `speaking_threshold`.

    Raises
    ------
    AudioError, OSError
        A recording that cannot be used, or too many of them.

    Examples
    --------
    >>> lab = VadLab("turn.wav", session=playground)  # doctest: +SKIP
    >>> lab.threshold = 0.6                           # doctest: +SKIP
    >>> await lab.apply()                             # doctest: +SKIP
    """

    threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="0 to 1. Higher needs clearer speech.")
    silence_duration_ms = traitlets.Int(200, min=0, help="Silence that ends a turn, ms.")
    prefix_padding_ms = traitlets.Int(300, min=0, help="Audio kept from before the start, ms.")
    speaking_threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="Threshold while the assistant speaks.")

    def __init__(
        self,
        recordings: Any = (),
        *,
        session: Any = None,
        microphone: Microphone | None = None,
        constants: VadConstants = SERVER_MODEL_V1,
        overlaps: Iterable[Overlap] = (),
    ) -> None:
        controls = getattr(session, "turn_detection", None)
        if session is not None and controls is None and not isinstance(session, Session):
            raise TypeError(f"session is a {type(session).__name__}; allowed: a Session or a Playground")
        single = isinstance(recordings, (Recording, str)) or not isinstance(recordings, Iterable)
        self.bench = Bench([recordings] if single else recordings, constants=constants)
        self.microphone = Microphone() if microphone is None else microphone
        self.view = VadView(self._clip)
        clips, settings = list(overlaps), [ServerVad(threshold=one) for one in THRESHOLDS]
        self.overlaps = overlap_lab(clips, settings, constants=constants) if clips else None
        """Table of `rtnb.overlap_lab`; None without clips."""
        self._target = session
        self._switch: Any = None
        self._axes: list[Any] = []
        self._exits = ExitStack()
        self._look = Look()
        super().__init__(layout=self._look.layout)
        self.add_class("rtnb-vad-lab")
        self.children = self._rows(controls)
        self._exits.callback(close_all, self.view, *([self.microphone] if microphone is None else []))
        self.observe(self._show_figures, [*KNOBS, "speaking_threshold"])
        self._show_bench()

    def _rows(self, controls: Any) -> list[Any]:
        """Make the widgets of the page, top to bottom, and link the knobs with the view and a playground's controls."""
        row, column = partial(self._look.make, ipywidgets.HBox), partial(self._look.make, ipywidgets.VBox)
        html = partial(self._look.make, ipywidgets.HTML)
        knobs = []
        for name, knob in KNOBS.items():
            slider = self._look.input(knob, getattr(self, name))
            knobs.append(column([slider, html(format_note(knob.help, knob.tooltip))]))
            # The playground's control comes last: its setting is in force, so it replaces the defaults of the lab.
            for source in ((slider, "value"), *([] if controls is None else [(controls, name)])):
                self._exits.callback(traitlets.link(source, (self, name)).unlink)
        self._exits.callback(traitlets.link((self.view, "threshold"), (self, "threshold")).unlink)
        names = [(COLUMNS[name][0], name) for name in MAPS]
        self._metric = self._look.make(ipywidgets.Dropdown, description="Map of", options=names)
        self._metric.observe(lambda _: self._draw_maps(), "value")
        self._picker = self._look.make(ipywidgets.Dropdown, description="Recording")
        self._gap = self._look.make(ipywidgets.BoundedFloatText, description="Turn gap (ms)", max=1e9, step=100)
        self._picker.observe(self._show_recording, "value")
        self._gap.observe(self._on_gap, "value")
        self._table, self._advice, self._status, self._shares = (html() for _ in range(4))
        speaking = self._look.make(ipywidgets.FloatSlider, max=1.0, step=0.05, description="Threshold ●")
        traitlets.link((self, "speaking_threshold"), (speaking, "value"))
        actions: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {"Use recommended": self._use_recommended}
        if self._target is not None:
            actions |= {"Apply to session": self.apply, "Compare with the service": self.compare}
        actions |= {"Record room tone": partial(self.record, "room tone"), "Record a turn": self.record}
        self._buttons = [self._look.button(text, partial(self._start, action)) for text, action in actions.items()]
        return [
            row(knobs),
            row([self._picker, self._gap, html("Drag the line to set the threshold; click to listen.")]),
            self.view,
            row([self._metric, html("● this setting")]),
            row([self._table, column([self._advice, row(self._buttons), self._status])]),
            *([self._shares, speaking] if self.overlaps is not None else []),
            self.microphone,
            shared_channel(),
            self._look.sheet,
        ]

    @property
    def turn_detection(self) -> ServerVad:
        """The shown setting, ready for ``session.update(turn_detection=…)``."""
        return ServerVad(**{name: getattr(self, name) for name in KNOBS})

    @property
    def recommended(self) -> ServerVad | None:
        """Recommended setting; None where the turns show none (see ``lab.bench.recommendation``)."""
        recommendation = self.bench.recommendation
        return recommendation.turn_detection if recommendation and recommendation.choice else None

    def add(self, *recordings: Any) -> None:
        """Add recordings; takes seconds per hour of audio."""
        self.bench.add(recordings)
        self._show_bench()

    def use(self, setting: ServerVad) -> None:
        """Show a setting, e.g. `recommended`; `apply` sends it to the session."""
        for name in KNOBS:
            if isinstance(value := getattr(setting, name), int | float):
                setattr(self, name, value)

    async def apply(self) -> dict[str, tuple[Any, Any]]:
        """Set the session's turn detection to the shown setting.

        Returns
        -------
        dict
            For each setting: (requested, effective).
        """
        session, requested = await self._open_session(), self.turn_detection
        if self._switch is not None:
            await self._switch.aclose()
        await session.update(turn_detection=requested)
        if self.overlaps is not None:
            speaking = replace(requested, threshold=self.speaking_threshold)
            self._switch = session.overlap_settings(listening=requested, speaking=speaking)
        effective = session.config.turn_detection
        found = {name: (getattr(requested, name), getattr(effective, name, None)) for name in KNOBS}
        differ = [f"{name}: requested {asked}, effective {has}" for name, (asked, has) in found.items() if asked != has]
        self.set_status("; ".join(differ) or f"Effective: {_format_setting(requested)}.", problem=bool(differ))
        return found

    async def compare(self, *, paced: bool | float = True) -> dict[str, Any]:
        """Play the shown recording (20 s at most) to the service, and compare its events with the local model's.

        Parameters
        ----------
        paced : bool or float, default True
            True plays in real time; a number that many times faster.

        Returns
        -------
        dict
            n_service and n_model (starts and stops of each), n_matched (within 96 ms), problems.
        """
        session, index, setting = await self._open_session(), self._picker.value, self.turn_detection
        if index is None:
            raise RtnbError("there is no recording to compare with").with_hint("Record a turn, or add a recording.")
        shown = self.bench.recordings[index]
        clip = Recording(shown.audio[: int(COMPARED_S * shown.rate_hz)], rate_hz=shown.rate_hz, name=shown.name)
        self.set_status(f"Playing {clip.duration_ms / 1000:.0f} s to the service …")
        observed = await probe(session, clip, setting, paced=paced)
        found = self.bench.compare(index, setting, observed, until_ms=clip.duration_ms)
        text = (
            f"{found['n_matched']} of the service's {found['n_service']} starts and stops are within {TOLERANCE_MS} ms "
        )
        text += f"of the local model, which has {found['n_model']}."
        if self._picker.value == index:
            ends = [next((stop for stop in observed.stops_ms if stop > at), None) for at in observed.starts_ms]
            self.view.service = [*zip(observed.starts_ms, ends, strict=True)]
        self.set_status(" ".join([text, *observed.problems]), problem=bool(observed.problems))
        return {**found, "problems": observed.problems}

    async def record(self, what: str = "turn", *, seconds: float | None = None) -> Recording:
        """Record one turn, or the room while all are silent, and add it to the lab.

        Parameters
        ----------
        what : {"turn", "room tone"}
            Kind of the recording; a turn is one clip.
        seconds : float, optional
            Default: 15 s for a turn, 10 s for room tone.
        """
        if what not in _KINDS:
            raise ValueError(f"what is {what!r}; allowed: 'turn', 'room tone'")
        default_s, prompt, make = _KINDS[what]
        seconds = seconds or default_s
        self.set_status(f"● Recording {seconds:.0f} s. {prompt}")
        audio = await self.microphone.record(seconds)
        number = 1 + sum(one.name.startswith(what) for one in self.bench.recordings)
        recording = make(audio, rate_hz=RATE_HZ, name=f"{what} {number}")
        await asyncio.to_thread(self.add, recording)
        self._picker.value = len(self.bench.recordings) - 1
        self.set_status(f"Added “{recording.name}”.")
        return recording

    def set_status(self, text: str, *, problem: bool = False) -> None:
        """Show one line of text below the buttons."""
        self._status.value = _text(text, "rtnb-error" if problem else "", role="status")

    def close(self) -> None:
        """Close the lab and a microphone that it made; the session stays open. Closing twice is fine."""
        if self._switch is not None:
            self._switch.stop()
        self._exits.close()
        self._look.close()
        super().close()

    # --- to the page --------------------------------------------------------------------------------------------------

    def _show_bench(self) -> None:
        """Show the recordings, the metrics of all settings, and the recommendation."""
        bench, index = self.bench, self._picker.value or 0
        if bench.sweep is not None:
            self._picker.options = [(one.name, k) for k, one in enumerate(bench.recordings)]
            self._picker.value = index
        advice = [bench.recommendation.verdict, *bench.recommendation.advice[:2]] if bench.recommendation else [START]
        self._advice.value = _text("\n".join(advice))
        self._show_recording()
        self._draw_maps()

    def _draw_maps(self) -> None:
        """Draw one metric of all settings, and cut-offs over delay; without turns there is nothing to draw."""
        bench, plots = self.bench, dict[str, Callable[..., Any]]()
        if bench.recommendation is not None:
            heading = f"Map of {self._metric.label}, over threshold and silence duration"
            plots = {heading: partial(plot_sweep, metric=self._metric.value), "Turns cut off over delay": plot_pareto}
        drawn = [draw_png(plot, bench.sweep, recommendation=bench.recommendation) for plot in plots.values()]
        urls = [f"data:image/png;base64,{b64encode(picture).decode()}" for picture, _ in drawn]
        self.view.maps = [{"alt": text, "src": url} for text, url in zip(plots, urls, strict=True)]
        self._axes = [ax for _, ax in drawn]
        self._show_figures()

    def _marks(self, metrics: pd.Series[Any]) -> list[dict[str, str] | None]:
        """Return the place of a setting in the picture of each map, as CSS; None outside of its axes."""
        silence_ms, threshold, delay_ms, cut_off = metrics[
            ["silence_duration_ms", "threshold", "delay_p90_ms", "cut_off_rate"]
        ]
        marks = []
        for ax, point in zip(self._axes, ((silence_ms, threshold), (delay_ms, 100 * cut_off)), strict=False):
            left, bottom = ax.figure.transFigure.inverted().transform(ax.transData.transform(point))
            shown = ax.viewLim.contains(*point)
            marks.append({"left": f"{100 * left:.1f}%", "bottom": f"{100 * bottom:.1f}%"} if shown else None)
        return marks

    def _show_recording(self, _: Any = None) -> None:
        """Show another recording."""
        if self._picker.value is None:
            return
        recording, constants = self.bench.recordings[self._picker.value], self.bench.constants
        samples_per_bin = 1 + len(recording.audio) // MAX_BINS
        peaks = min_max(np.frombuffer(encode_pcm16(recording.audio), "<i2"), samples_per_bin=samples_per_bin)
        self.view.recording = {
            "peaks": peaks.tobytes(),
            "bin_ms": 1000 * samples_per_bin / recording.rate_hz,
            "probabilities": np.asarray(self.bench.heard[self._picker.value].probabilities, np.float32).tobytes(),
            "frame_ms": FRAME_MS,
            "duration_ms": recording.duration_ms,
            "turns": [(turn.start_ms, turn.end_ms) for turn in recording.turns],
            "pauses": [pause for turn in recording.turns for pause in turn.pauses],
            "levels": [(constants.local(k / 100), constants.release(k / 100)) for k in range(101)],
        }
        self.view.service = []
        self._gap.value = recording.turn_gap_ms or 0
        self._show_figures()

    def _show_figures(self, _: Any = None) -> None:
        """Show the effect of the shown setting, and of the threshold while the assistant speaks."""
        import pandas as pd

        bench, index, setting = self.bench, self._picker.value, self.turn_detection
        if self.overlaps is not None:
            self._shares.value = _overlap_table(self.overlaps, self.threshold, self.speaking_threshold)
        if index is None:
            return
        settings = {"this setting": setting, "default": SERVER_VAD_DEFAULTS}
        settings |= {"recommended": self.recommended} if self.recommended else {}
        metrics = pd.DataFrame({name: bench.metrics(one) for name, one in settings.items()})
        self._table.value = f'<div class="rtnb rtnb-vad-table">{bench.table(metrics).to_html(border=0)}</div>'
        segments = bench.segments(index, setting)
        self.view.figures = {
            "segments": [(one.audio_start_ms, one.audio_end_ms) for one in segments],
            "cut_offs_ms": [early[0] for early in cut_offs(bench.recordings[index].turns, segments)],
            "marks": self._marks(metrics["this setting"]),
        }

    # --- from the page ------------------------------------------------------------------------------------------------

    def _clip(self, start_ms: float) -> bytes:
        recording = self.bench.recordings[self._picker.value]
        first, count = (ms_to_samples(ms, rate_hz=recording.rate_hz) for ms in (start_ms, CLIP_MS))
        clip = recording.audio[first : first + count]
        return encode_pcm16(resample(clip, from_rate_hz=recording.rate_hz, to_rate_hz=RATE_HZ))

    def _on_gap(self, change: Any) -> None:
        index, gap_ms = self._picker.value, change.new
        if index is not None and gap_ms != (self.bench.recordings[index].turn_gap_ms or 0):
            self.bench.split(index, turn_gap_ms=gap_ms)
            self._show_bench()

    async def _use_recommended(self) -> None:
        if self.bench.recommendation is None:
            raise RtnbError("there are no turns yet").with_hint("Record some.")
        self.use(self.bench.recommendation.turn_detection)
        self.set_status(f"Shown: {_format_setting(self.turn_detection)}. Apply it to send it to the session.")

    async def _open_session(self) -> Session:
        # A playground's session may still be opening: waiting for it blocks.
        session: Session | None = await asyncio.to_thread(lambda: getattr(self._target, "session", self._target))
        if session is None or session.closed:
            error = RtnbError("there is no session, or it is closed")
            raise error.with_hint("Give an open one: VadLab(recordings, session=playground).")
        return session

    def _start(self, action: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start the action of a button; no other button can be pressed until it ends."""
        self._enable(False)
        shared_loop().submit(self._run(action))

    async def _run(self, action: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run the action of a button and show its error."""
        try:
            await action()
        except (RtnbError, OSError, ValueError) as error:
            self.set_status(format_error(error), problem=True)
        finally:
            self._enable(True)

    def _enable(self, enabled: bool) -> None:
        for button in self._buttons:
            button.disabled = not enabled

    def __repr__(self) -> str:
        return f"<VadLab: {len(self.bench.recordings)} recordings, {_format_setting(self.turn_detection)}>"


def _format_setting(one: ServerVad) -> str:
    silence_ms, prefix_ms = one.silence_duration_ms, one.prefix_padding_ms
    return f"threshold {one.threshold:g}, silence duration {silence_ms} ms, prefix padding {prefix_ms} ms"


def _text(text: str, kind: str = "", *, role: str = "note") -> str:
    return f'<div class="rtnb rtnb-message {kind}" role="{role}">{escape(text)}</div>'


def _overlap_table(shares: pd.DataFrame, listening: float, speaking: float) -> str:
    """Return shares of clips that start a turn as HTML: a row for each kind, a column for each threshold."""
    listening, speaking = (min(THRESHOLDS, key=lambda one: abs(one - at)) for at in (listening, speaking))
    heads = [f"<th>{one:g}<br>{'○' * (one == listening)}{'●' * (one == speaking)}</th>" for one in THRESHOLDS]
    rows = [f"<tr><th>Clips that start a turn (%), at {speaking:.2f} ●</th>{''.join(heads)}</tr>"]
    for kind, part in shares.groupby("kind", sort=False):
        at = part.iloc[THRESHOLDS.index(speaking)]
        interval = "interval not shown" if isnan(at.low) else f"{100 * at.low:.0f} to {100 * at.high:.0f} %"
        name = f"{kind} {100 * at.rate:.0f} % ({interval}; n = {at.n}, {at.n_groups} groups)"
        cells = [f'<td style="--share: {100 * rate:.0f}%">{100 * rate:.0f}</td>' for rate in part["rate"]]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    legend = "○ while the assistant listens, ● while it speaks"
    return f'<div class="rtnb rtnb-overlaps" tabindex="0"><table>{"".join(rows)}</table>{legend}</div>'
