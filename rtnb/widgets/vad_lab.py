"""`VadLab`: try turn detection settings on recordings, apply one to the session, and compare it with the service.

The page draws; segments, figures and maps are computed here, on the background loop. The messages of `VadView` are
listed in vad_view.js.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Final

import ipywidgets
import numpy as np
import traitlets

from rtnb._loop import shared_loop
from rtnb.analysis.overlaps import Overlap
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import METRICS, SERVER_MODEL_V1
from rtnb.audio import RATE_HZ, encode_pcm16, ms_to_samples, resample
from rtnb.audio.decimate import min_max
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.experiments.calibration import probe
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS, VadConstants
from rtnb.widgets._base import bundle, format_error, styles
from rtnb.widgets.channel import Answer, StreamWidget, shared_channel
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.overlap_view import OverlapView
from rtnb.widgets.settings import close_all
from rtnb.widgets.vad_bench import KNOBS, MAPPED, TOLERANCE_MS, Bench

SECONDS: Final = {"turn": 15.0, "room tone": 10.0}
"""Kinds of recordings, and how long one lasts."""
COMPARED_S: Final = 20.0
"""Longest part of a recording that is played to the service (chosen)."""
PROMPTS: Final = (
    "How do you get to work? Think aloud, take your time.",
    "Spell your e-mail address, and read a phone number.",
    "Order dinner for three. You have not decided yet.",
    "What did you do last weekend? Remember as you speak.",
)
"""Questions whose answers have the pauses that people make when they think."""
BIN_MS: Final = 4
"""Shortest stretch of audio that one pair of the waveform covers."""
MAX_BINS: Final = 200_000
"""Pairs sent to the page, 0.8 MB; a longer recording (over 13 min) gets longer bins."""
MAX_SEGMENTS: Final = 5_000
"""Segments sent to the page; the rest of a recording with more is shown without."""
MAX_CLIP_MS: Final = 10_000.0
"""Longest clip that the page may play at a time."""
_MAX_NAME: Final = 80


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
            "turn_gap_ms": recording.turn_gap_ms,
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
            "recommendation": [] if advice is None else [advice.verdict, *advice.advice[:2]],
        }

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Answer | Awaitable[Answer]:
        if kind == "show":
            self.show(int(header["index"]))
        elif kind == "split" and self.recording is not None:
            self.bench.split(int(header["index"]), turn_gap_ms=float(header["turn_gap_ms"]))
            self.refresh()
        elif kind == "figures":
            return asyncio.to_thread(self._figures, ServerVad(**header))  # up to 0.1 s for 2 h of audio
        elif kind == "play" and (recording := self.recording) is not None:
            rate_hz, span_ms = recording.rate_hz, min(header["span_ms"], MAX_CLIP_MS)
            first, count = (ms_to_samples(ms, rate_hz=rate_hz) for ms in (header["start_ms"], span_ms))
            clip = resample(recording.audio[first : first + count], from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
            return {}, [encode_pcm16(clip)]
        elif kind == "action":
            shared_loop().submit(self._run_action(header["name"]))
        return None


class VadLab(ipywidgets.VBox):  # type: ignore[misc]
    """Effect of every server VAD setting on recordings; choose a setting, apply it, compare it with the service.

    `threshold`, `silence_duration_ms` and `prefix_padding_ms` are the shown setting: traits, to be set, observed and
    linked. With a playground they are linked with its turn detection, both ways.

    Parameters
    ----------
    recordings : Recording or path, iterable of them, Session, or Playground
        With labelled turns, see `rtnb.Recording`; at most 500, and 2 hours. A session here means no recordings yet.
    session : Session or Playground, optional
        Target of *Apply to session* and *Compare with the service*; it may live on any event loop.
    microphone : Microphone, optional
        Source of new recordings; `close` leaves it open. Default: one that the lab makes and closes.
    constants : VadConstants
        Model of the service: `Calibration.constants` of a calibration.
    overlaps : iterable of Overlap, optional
        Labelled interruptions, coughs, echo …: adds a view of the clips that stop the assistant. *Apply to session*
        then applies a second threshold while the assistant speaks, `overlap_view.speaking_threshold`.

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

    def __init__(
        self,
        recordings: Any = (),
        *,
        session: Any = None,
        microphone: Microphone | None = None,
        constants: VadConstants = SERVER_MODEL_V1,
        overlaps: Iterable[Overlap] = (),
    ) -> None:
        if _is_session(recordings):
            recordings, session = (), recordings
        if session is not None and not _is_session(session):
            raise TypeError(f"session is a {type(session).__name__}; allowed: a Session or a Playground")
        single = isinstance(recordings, (Recording, str)) or not isinstance(recordings, Iterable)
        self.bench = Bench([recordings] if single else recordings, constants=constants)
        self.microphone = Microphone() if microphone is None else microphone
        self._target = session
        self._actions: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "use": self._use_recommended,
            "apply": self.apply,
            "compare": self.compare,
            "record_room_tone": lambda: self.record("room tone"),
            "record_turn": self.record,
        }
        enabled = [name for name in self._actions if session is not None or name not in ("apply", "compare")]
        self.view = VadView(self.bench, self._run_action, enabled=enabled)
        self._accordion = ipywidgets.Accordion([self.microphone], titles=("Microphone",), selected_index=None)
        clips = list(overlaps)
        self.overlap_view = OverlapView(clips, constants=constants) if clips else None
        """View of the overlaps; None without clips."""
        views = [self.view, *([self.overlap_view] if self.overlap_view else [])]
        super().__init__([*views, self._accordion, shared_channel()], layout=ipywidgets.Layout(min_width="0"))
        self.add_class("rtnb-vad-lab")
        self._switch: Any = None
        self._parts = [*views, self._accordion, self.layout, *([self.microphone] if microphone is None else [])]
        controls = [one for one in (self.view, getattr(session, "turn_detection", None)) if one is not None]
        # The playground's control comes last: its setting is in force, so it replaces the defaults of the lab.
        self._links = [traitlets.link((control, name), (self, name)) for control in controls for name in KNOBS]
        if self.overlap_view:
            self._links.append(traitlets.link((self, "threshold"), (self.overlap_view, "listening_threshold")))

    @property
    def turn_detection(self) -> ServerVad:
        """The shown setting, ready for ``session.update(turn_detection=…)``."""
        return self.view.setting

    @property
    def session(self) -> Session | None:
        """Session to apply settings to; blocks until a playground's session is open."""
        return self._target if isinstance(self._target, Session | None) else self._target.session

    @property
    def recommended(self) -> ServerVad | None:
        """Recommended setting; None where the turns show none (see ``lab.bench.recommendation``)."""
        return self.bench.recommended()

    def add(self, *recordings: Any) -> None:
        """Add recordings; takes seconds per hour of audio."""
        self.bench.add(recordings)
        self.view.refresh()

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
        if self.overlap_view:
            speaking = replace(requested, threshold=self.overlap_view.speaking_threshold)
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
        session, index, setting = await self._open_session(), self.view.index, self.turn_detection
        if not self.bench.recordings:
            raise RtnbError("there is no recording to compare with").with_hint("Record a turn, or add a recording.")
        shown = self.bench.recordings[index]
        clip = Recording(shown.audio[: int(COMPARED_S * shown.rate_hz)], rate_hz=shown.rate_hz, name=shown.name)
        self.set_status(f"Playing {clip.duration_ms / 1000:.0f} s to the service …")
        observed = await probe(session, clip, setting, paced=paced)
        service = (observed.starts_ms, observed.stops_ms)
        found = self.bench.compare(index, setting, *service, until_ms=clip.duration_ms)
        text = (
            f"{found['n_matched']} of the service's {found['n_service']} starts and stops are within "
            f"{TOLERANCE_MS:.0f} ms of the local model, which has {found['n_model']}."
        )
        if self.view.index == index:
            self.view.show_service(*service)
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
        if what not in SECONDS:
            raise ValueError(f"what is {what!r}; allowed: 'turn', 'room tone'")
        is_turn = what == "turn"
        seconds = seconds or SECONDS[what]
        n = sum(one.name.startswith(what) for one in self.bench.recordings)
        prompt = f"{PROMPTS[n % len(PROMPTS)]} You have" if is_turn else "Say nothing for"
        self._accordion.selected_index = 0
        self.set_status(f"● Recording. {prompt} {seconds:.0f} s.")
        audio = await self.microphone.record(seconds)
        make = Recording.of_one_turn if is_turn else Recording.of_room_tone
        recording = make(audio, rate_hz=RATE_HZ, name=f"{what} {n + 1}")
        await asyncio.to_thread(self.add, recording)
        self.view.show(len(self.bench.recordings) - 1)
        self.set_status(f"Added “{recording.name}”.")
        return recording

    def set_status(self, text: str, *, problem: bool = False) -> None:
        """Show one line of text below the buttons."""
        self.view.status = {"text": text, "problem": problem}

    def close(self) -> None:
        """Close the lab and a microphone that it made; the session stays open. Closing twice is fine."""
        if self._switch is not None:
            self._switch.stop()
        for link in self._links:
            link.unlink()
        self._links.clear()
        close_all(*self._parts)
        super().close()

    async def _use_recommended(self) -> None:
        setting, advice = self.recommended, self.bench.recommendation
        if setting is not None:
            self.use(setting)
            self.set_status(f"Shown: {_format_setting(setting)}. Apply it to send it to the session.")
        else:
            self.set_status("There are no turns yet: record some." if advice is None else advice.verdict, problem=True)

    async def _open_session(self) -> Session:
        if self._target is None:
            raise RtnbError("there is no session").with_hint("Give one: VadLab(recordings, session=playground).")
        session = await asyncio.to_thread(lambda: self.session)  # a playground's may still be opening
        if session is None or session.closed:
            raise RtnbError("the session is closed").with_hint("Connect again.")
        return session

    async def _run_action(self, name: str) -> None:
        """Run the action of a button and show its error; meanwhile no other button can be pressed."""
        enabled, self.view.enabled = self.view.enabled, []
        try:
            if enabled:
                await self._actions[name]()
        except (RtnbError, OSError, ValueError) as error:
            self.set_status(format_error(error), problem=True)
        finally:
            self.view.enabled = enabled

    def __repr__(self) -> str:
        return f"<VadLab: {len(self.bench.recordings)} recordings, {_format_setting(self.turn_detection)}>"


def _format_setting(one: ServerVad) -> str:
    silence_ms, prefix_ms = one.silence_duration_ms, one.prefix_padding_ms
    return f"threshold {one.threshold:g}, silence duration {silence_ms} ms, prefix padding {prefix_ms} ms"


def _is_session(value: Any) -> bool:
    return isinstance(value, Session) or hasattr(value, "turn_detection")
