"""`VadLab`: try turn detection settings on recordings, apply one to the session, and compare it with the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import ipywidgets
import traitlets

from rtnb.analysis.bench import KNOBS, TOLERANCE_MS, Bench
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import SERVER_MODEL_V1
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.experiment.calibration import probe
from rtnb.protocol.values import ServerVad
from rtnb.vad import VadConstants
from rtnb.widgets._base import format_error
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.microphone_sender import RATE_HZ
from rtnb.widgets.settings import close_all
from rtnb.widgets.vad_view import VadView

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
        super().__init__([self.view, self._accordion, shared_channel()], layout=ipywidgets.Layout(min_width="0"))
        self.add_class("rtnb-vad-lab")
        self._parts = [self.view, self._accordion, self.layout, *([self.microphone] if microphone is None else [])]
        controls = [one for one in (self.view, getattr(session, "turn_detection", None)) if one is not None]
        # The playground's control comes last: its setting is in force, so it replaces the defaults of the lab.
        self._links = [traitlets.link((control, name), (self, name)) for control in controls for name in KNOBS]

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
        await session.update(turn_detection=requested)
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
