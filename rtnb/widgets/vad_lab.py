"""`VadLab`: tune turn detection on recordings, apply it to the session, and verify what the service does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from html import escape
from typing import Any, Final, TypeVar

import ipywidgets
import numpy as np
import traitlets

from rtnb._loop import shared_loop
from rtnb.analysis.bench import KNOBS, Bench
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import SERVER_MODEL_V1
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.experiment.calibration import probe
from rtnb.protocol.values import ServerVad
from rtnb.vad import VadConstants, server_vad_segments
from rtnb.widgets._base import format_error
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.microphone_sender import RATE_HZ
from rtnb.widgets.settings import close_all
from rtnb.widgets.vad_view import VadView

T = TypeVar("T")
Actions = dict[str, tuple[str, Callable[[], Coroutine[Any, Any, Any]]]]
"""Name of a button -> what it says of itself, and what it does."""

AGREE_MS: Final = 96.0
"""Service and model tell the same where their times are so close: three frames."""
ROOM_TONE_S: Final = 10.0
TURN_S: Final = 15.0
PROBE_S: Final = 20.0
"""At most so much of a recording is played to the service (chosen)."""
PROMPTS: Final = (
    "How do you get to work? Think aloud, take your time.",
    "Spell your e-mail address, and read a phone number.",
    "Order dinner for three. You have not decided yet.",
    "What did you do last weekend? Remember as you speak.",
)
"""Each gives one turn with the pauses people make when they think."""


class VadLab(ipywidgets.VBox):  # type: ignore[misc]
    """See what the server VAD would do to recordings for every setting; choose, apply, verify.

    `threshold`, `silence_duration_ms` and `prefix_padding_ms` are the shown setting: traits, to be set, observed and
    linked. With a playground they are linked with its turn detection, both ways.

    Parameters
    ----------
    recordings : Recording or path, iterable of them, Session, or Playground
        With labelled turns; see `rtnb.Recording`. Of a session, recordings are made with the recorder.
    session : Session or Playground, optional
        What *Apply* and *Verify* talk to; it may live on any event loop.
    microphone : Microphone, optional
        What the recorder listens to. None makes one.
    constants : VadConstants
        What is assumed about the service: `Calibration.constants` of a calibration.

    Raises
    ------
    AudioError, OSError
        A recording that cannot be used.

    Examples
    --------
    >>> lab = VadLab("turn.wav", session=playground)  # doctest: +SKIP
    >>> lab.threshold = 0.6                           # doctest: +SKIP
    >>> await lab.apply()                             # doctest: +SKIP
    """

    threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="0 to 1. Higher needs clearer speech.")
    silence_duration_ms = traitlets.Int(200, min=0, help="ms. Longer cuts fewer people off and answers later.")
    prefix_padding_ms = traitlets.Int(300, min=0, help="ms of sound kept from before the start.")

    def __init__(
        self,
        recordings: Any = (),
        *,
        session: Any = None,
        microphone: Microphone | None = None,
        constants: VadConstants = SERVER_MODEL_V1,
    ) -> None:
        if _is_session(recordings):
            recordings, session = (), recordings
        if session is not None and not _is_session(session):
            raise TypeError(f"session is a {type(session).__name__}; allowed: a Session or a Playground")
        single = isinstance(recordings, (Recording, str)) or not isinstance(recordings, Iterable)
        self.bench = Bench([recordings] if single else recordings, constants=constants)
        self._target = session
        self.view = VadView(self.bench)
        self.microphone = Microphone() if microphone is None else microphone
        self._links: list[Any] = []
        super().__init__(layout=ipywidgets.Layout(min_width="0"))
        self.add_class("rtnb-vad-lab")
        for name in KNOBS:
            self._links.append(traitlets.link((self.view, name), (self, name)))
        self._sliders = self._make_sliders()
        self._status = ipywidgets.HTML(layout=ipywidgets.Layout(min_width="0"))
        self._recorder = self._make_recorder()
        self._buttons = self._make_buttons()
        self.children = (self._sliders, self.view, self._buttons, self._status, self._recorder, shared_channel())
        control = getattr(session, "turn_detection", None)
        if control is not None:
            for name in KNOBS:  # the playground's setting comes first: it is in force
                self._links.append(traitlets.link((control, name), (self, name)))

    # --- what it shows ------------------------------------------------------------------------------------------------

    @property
    def turn_detection(self) -> ServerVad:
        """The shown setting, ready for ``session.update(turn_detection=…)``."""
        return self.view.point

    @property
    def session(self) -> Session | None:
        """The session that *Apply* and *Verify* talk to; a playground's is waited for."""
        return self._target if isinstance(self._target, Session | None) else self._target.session

    def add(self, *recordings: Any) -> None:
        """Put more recordings on the bench: seconds per hour of audio."""
        self.bench.add(recordings)
        self.view.refresh()

    def take(self, setting: ServerVad) -> None:
        """Show a setting, e.g. `recommended`."""
        for name in KNOBS:
            if isinstance(value := getattr(setting, name), int | float):
                setattr(self, name, value)

    @property
    def recommended(self) -> ServerVad | None:
        """What the turns recommend; None where they show nothing (see ``lab.bench.recommendation``)."""
        return self.bench.recommended()

    # --- the session --------------------------------------------------------------------------------------------------

    async def apply(self) -> dict[str, tuple[Any, Any]]:
        """Set the session's turn detection to the shown setting.

        Returns
        -------
        dict
            Each setting: what was asked for, and what the service has in force now.
        """
        return await self._in_background(self._apply())

    async def verify(self, *, paced: bool | float = True) -> dict[str, Any]:
        """Play the shown recording (20 s at most) to the service, and compare what it tells with the local model.

        Parameters
        ----------
        paced : bool or float, default True
            True plays in real time; a number that many times faster.

        Returns
        -------
        dict
            n_service and n_model (how many starts and stops each tells), n_alike (within 96 ms), problems.
        """
        return await self._in_background(self._verify(paced))

    async def _apply(self) -> dict[str, tuple[Any, Any]]:
        session, wanted = await self._open(), self.turn_detection
        await session.update(turn_detection=wanted)
        effective = session.config.turn_detection
        found = {name: (getattr(wanted, name), getattr(effective, name, None)) for name in KNOBS}
        differ = [f"{name}: asked {asked}, in force {has}" for name, (asked, has) in found.items() if asked != has]
        self._say("; ".join(differ) if differ else f"In force: {_words(wanted)}.", bad=bool(differ))
        return found

    async def _verify(self, paced: bool | float) -> dict[str, Any]:
        session, recording, wanted = await self._open(), self.view.recording, self.turn_detection
        if recording is None:
            raise RtnbError("there is no recording to verify with").with_hint("Record a turn, or add one.")
        clip = recording if recording.duration_ms <= 1000 * PROBE_S else _head(recording, PROBE_S)
        self._say(f"Playing {clip.duration_ms / 1000:.0f} s to the service …")
        told = await probe(session, clip, wanted, paced=paced)
        segments = server_vad_segments(
            self.bench.probabilities(self.view.index),
            threshold=self.threshold,
            silence_duration_ms=self.silence_duration_ms,
            prefix_padding_ms=self.prefix_padding_ms,
            constants=self.bench.constants,
        )
        heard = [one for one in segments if 32 * one.start_frame < clip.duration_ms]
        pairs = [(told.starts_ms, [32 * one.start_frame - self.prefix_padding_ms for one in heard])]
        pairs += [(told.stops_ms, [one.audio_end_ms for one in heard if one.audio_end_ms is not None])]
        alike = sum(_alike(service, model) for service, model in pairs)
        found = {
            "n_service": sum(len(service) for service, _ in pairs),
            "n_model": sum(len(model) for _, model in pairs),
            "n_alike": alike,
            "problems": told.problems,
        }
        words = (
            f"Service: {len(told.starts_ms)} starts and {len(told.stops_ms)} stops; "
            f"{alike} of them as the local model tells, within {AGREE_MS:.0f} ms."
        )
        self.view.show_service(_stretches(told.starts_ms, told.stops_ms))
        self._say(" ".join([words, *told.problems]), bad=bool(told.problems))
        return found

    async def _open(self) -> Session:
        if self._target is None:
            raise RtnbError("there is no session").with_hint("Give one: VadLab(recordings, session=playground).")
        session = self._target if isinstance(self._target, Session) else await asyncio.to_thread(lambda: self.session)
        if session is None or session.closed:
            raise RtnbError("the session is closed").with_hint("Connect again.")
        return session

    # --- recording ----------------------------------------------------------------------------------------------------

    async def record(self, what: str = "turn", *, seconds: float | None = None) -> Recording:
        """Record a turn, or the room without anybody speaking, and put it on the bench.

        Parameters
        ----------
        what : {"turn", "room tone"}
            One clip is one turn.
        seconds : float, optional
            Default: 15 s for a turn, 10 s for room tone.
        """
        return await self._in_background(self._record(what, seconds))

    async def _record(self, what: str, seconds: float | None) -> Recording:
        if what not in ("turn", "room tone"):
            raise ValueError(f"what is {what!r}; allowed: 'turn', 'room tone'")
        tone = what == "room tone"
        seconds = seconds or (ROOM_TONE_S if tone else TURN_S)
        n = sum(one.name.startswith(what) for one in self.bench.recordings)
        prompt = "Say nothing for" if tone else f"{PROMPTS[n % len(PROMPTS)]} You have"
        self._say(f"● Recording. {prompt} {seconds:.0f} s.")
        audio = await self.microphone.record(seconds)
        make = Recording.of_room_tone if tone else Recording.of_one_turn
        recording = make(audio, rate_hz=RATE_HZ, name=f"{what} {n + 1}")
        await asyncio.to_thread(self.add, recording)
        self.view.show(len(self.bench.recordings) - 1)
        n_turns = self.bench.sweep.n_turns if self.bench.sweep is not None else 0
        self._say(f"Kept “{recording.name}”. {n_turns} turns on the bench.")
        return recording

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _make_sliders(self) -> ipywidgets.Box:
        wide = ipywidgets.Layout(flex="1 1 260px", width="auto", min_width="0")
        style = {"description_width": "90px"}
        looks = (("Threshold", 0.0, 1.0, 0.01), ("Silence (ms)", 0, 2000, 8), ("Prefix (ms)", 0, 1000, 10))
        sliders = []
        for name, (label, low, high, step) in zip(KNOBS, looks, strict=True):
            kind = ipywidgets.FloatSlider if name == "threshold" else ipywidgets.IntSlider
            slider = kind(
                getattr(self, name), min=low, max=high, step=step, description=label, layout=wide, style=style
            )
            ipywidgets.jslink((slider, "value"), (self.view, name))  # the picture follows without the kernel
            sliders.append(slider)
        return ipywidgets.HBox(sliders, layout=ipywidgets.Layout(flex_flow="row wrap"))

    def _make_buttons(self) -> ipywidgets.Box:
        actions: Actions = {
            "Take recommended": ("Show the recommended setting", self._take_recommended),
            "Apply": ("Make it the session's turn detection", self._apply),
            "Verify": ("Play this recording to the service and compare", lambda: self._verify(True)),
        }
        return self._row(actions, without_session=("Take recommended",))

    def _make_recorder(self) -> ipywidgets.Accordion:
        actions: Actions = {
            "1. Room tone": ("10 s in which nobody speaks", lambda: self._record("room tone", None)),
            "2. Think aloud": ("One turn of 15 s; again and again", lambda: self._record("turn", None)),
        }
        guide = ipywidgets.HTML(
            "First the room, then turns as they will be spoken: pauses and all. Twenty turns say something, "
            "sixty say much. Stop when you have enough; the verdict above says how many are missing."
        )
        row = self._row(actions, without_session=tuple(actions))
        inside = ipywidgets.VBox([guide, row, self.microphone])
        return ipywidgets.Accordion([inside], titles=("Record turns",), selected_index=None)

    def _row(self, actions: Actions, *, without_session: tuple[str, ...]) -> ipywidgets.Box:
        buttons = []
        for name, (tip, work) in actions.items():
            button = ipywidgets.Button(description=name, tooltip=tip, layout=ipywidgets.Layout(width="max-content"))
            button.disabled = self._target is None and name not in without_session
            button.on_click(lambda _, work=work: shared_loop().submit(self._try(work())))
            buttons.append(button)
        return ipywidgets.HBox(buttons, layout=ipywidgets.Layout(flex_flow="row wrap"))

    async def _take_recommended(self) -> None:
        setting, advice = self.recommended, self.bench.recommendation
        if setting is None:
            self._say(advice.verdict if advice is not None else "There are no turns yet: record some.", bad=True)
        else:
            self.take(setting)

    async def _try(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do what a button says; what goes wrong is said here."""
        try:
            await work
        except (RtnbError, OSError, ValueError) as error:
            self._say(format_error(error), bad=True)

    async def _in_background(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(shared_loop().submit(work))

    def _say(self, text: str, *, bad: bool = False) -> None:
        look = ' style="color: var(--jp-error-color1, #c62828)"' if bad else ""
        self._status.value = f"<span{look}>{escape(text)}</span>"

    def close(self) -> None:
        """Leave the page; the session goes on."""
        for link in self._links:
            link.unlink()
        self._links.clear()
        close_all(self.view, self.microphone, self._sliders, self._buttons, self._status, self._recorder, self.layout)
        super().close()

    def __repr__(self) -> str:
        return f"<VadLab: {len(self.bench.recordings)} recordings, {_words(self.turn_detection)}>"


def _is_session(value: Any) -> bool:
    return isinstance(value, Session) or hasattr(value, "turn_detection")


def _words(setting: ServerVad) -> str:
    return (
        f"threshold {setting.threshold:g}, silence {setting.silence_duration_ms} ms, "
        f"prefix {setting.prefix_padding_ms} ms"
    )


def _head(recording: Recording, seconds: float) -> Recording:
    rate_hz = recording.rate_hz
    return Recording(recording.audio[: int(seconds * rate_hz)], rate_hz=rate_hz, name=recording.name)


def _alike(service: Iterable[float], model: Iterable[float]) -> int:
    """How many of the service's times have one of the model's beside them, each taken once."""
    left, alike = list(model), 0
    for at in service:
        near = min(left, key=lambda one: abs(one - at), default=np.inf)
        if abs(near - at) <= AGREE_MS:
            left.remove(near)
            alike += 1
    return alike


def _stretches(starts_ms: Iterable[int], stops_ms: Iterable[int]) -> list[dict[str, float | None]]:
    stops = sorted(stops_ms)
    return [{"start_ms": at, "stop_ms": next((stop for stop in stops if stop > at), None)} for at in sorted(starts_ms)]
