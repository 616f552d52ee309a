"""Helpers of the course: checks of exercises, diagrams, recordings from a microphone, and troubles to explain.

A trouble is one fault in one small scene: the simulator injects it, or the client makes a mistake. `act` runs the scene
and returns a `Case`: the symptom that a user reports, and the log that shows the cause.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import numpy as np
from scipy.signal import istft, stft

from rtnb.audio import Audio, ms_to_samples, resample, write_wav
from rtnb.client import Response, Session
from rtnb.client.log import EventLog
from rtnb.errors import RtnbError, WidgetError
from rtnb.protocol import ServerVad
from rtnb.simulator import Simulator
from rtnb.targets import connect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rtnb.widgets import Microphone

PATIENCE_S: Final = 30.0
"""Deadline of a scene, in seconds; the longest takes 6 s (measured), more on a busy machine."""


# --- exercises --------------------------------------------------------------------------------------------------------


class _Line:
    """Coloured line of text in a notebook."""

    def __init__(self, text: str, colour: str) -> None:
        self.text, self.colour = text, colour

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<b style="border-left: 4px solid {self.colour}; padding-left: 8px">{escape(self.text)}</b>'


@contextmanager
def check() -> Iterator[None]:
    """Show whether an exercise is solved: every `assert` inside must hold; the first failed one names what is missing.

    Only failed assertions count as unsolved. Any other exception (a NameError, an error of the service) is raised.

    Examples
    --------
    >>> with check():
    ...     assert 1 + 1 == 3, "count again"
    Not solved yet: count again
    """
    from IPython.display import display

    try:
        yield
    except AssertionError as missing:
        display(_Line(f"Not solved yet: {missing}" if str(missing) else "Not solved yet.", "#b35900"))  # type: ignore[no-untyped-call]
    else:
        display(_Line("Solved.", "#1a7f37"))  # type: ignore[no-untyped-call]


# --- diagrams ---------------------------------------------------------------------------------------------------------


def plot_sequence(actors: Sequence[str], messages: Sequence[tuple[str, str, str]]) -> Axes:
    """Draw messages between actors as arrows, in order from top to bottom.

    Parameters
    ----------
    actors : sequence of str
        Names, from left to right.
    messages : sequence of (str, str, str)
        Sender, receiver and text of each message.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = plot_sequence(["page", "service"], [("page", "service", "offer"), ("service", "page", "answer")])
    >>> [text.get_text() for text in axes.texts]
    ['page', 'service', '', 'offer', '', 'answer']
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(9, 0.45 * len(messages) + 0.6))
    axes.set(xlim=(-0.3, len(actors) - 0.7), ylim=(len(messages) + 0.3, -0.9))
    axes.axis("off")
    for x, actor in enumerate(actors):
        axes.axvline(x, ymax=0.9, color="grey", linewidth=1)
        axes.text(x, -0.5, actor, ha="center", weight="bold")
    for y, (sender, receiver, text) in enumerate(messages):
        start, stop = actors.index(sender), actors.index(receiver)
        axes.annotate("", xy=(stop, y + 0.4), xytext=(start, y + 0.4), arrowprops={"arrowstyle": "->"})
        axes.text((start + stop) / 2, y + 0.4, text, ha="center", va="center", backgroundcolor="white")
    return axes


def plot_level(levels_db: Audio, ax: Axes, **style: Any) -> None:
    """Draw the level of each 20 ms frame over time.

    Parameters
    ----------
    levels_db : ndarray, shape (n_frames,)
        Levels; 0 dB is full scale.
    ax : matplotlib.axes.Axes
        Where to draw.
    **style
        Of the line.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> ax = plt.figure().gca()
    >>> plot_level(np.array([-60.0, -30.0]), ax)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('time (s)', 'level (dB)')
    """
    ax.plot(0.02 * np.arange(len(levels_db)), levels_db, **style)
    ax.set(xlabel="time (s)", ylabel="level (dB)", ylim=(-90, 0))


COURSE: Final[Mapping[str, tuple[tuple[float, float], tuple[str, ...]]]] = {
    "00 Start here": ((0, 3), ()),
    "01 A session": ((1, 3), ("00",)),
    "02 Inspect and steer": ((2, 3), ("01",)),
    "03 Function calls": ((2, 0), ("01",)),
    "04 Microphone": ((2, 1), ("01",)),
    "05 End of a turn": ((3, 3.5), ("02",)),
    "06 Choose settings": ((4, 2.6), ("05",)),
    "07 WebRTC": ((2, 2), ("01",)),
    "08 Own model and voice": ((4, 3.5), ("05",)),
    "09 Troubles": ((4, 1.7), ("05",)),
    "10 Azure, old code": ((2, 4), ("01",)),
    "11 Keep and replay": ((2, 5), ("01",)),
    "12 Is prompt B better?": ((2, 6), ("01",)),
    "13 Interruptions": ((4, 5), ("05", "12")),
}
"""Lessons by number and short title: place on the map, and lessons to read before."""


def plot_course() -> Axes:
    """Draw the map of the course: a box for each lesson, an arrow from each lesson to those that build on it.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = plot_course()
    >>> len(axes.texts) > 14
    True
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(12.5, 4.5), layout="constrained")
    axes.set(xlim=(-0.45, 4.45), ylim=(6.5, -0.5))
    axes.axis("off")
    places = {title[:2]: place for title, (place, _) in COURSE.items()}
    for title, ((x, y), before) in COURSE.items():
        for number in before:
            from_x, from_y = places[number]
            ends = {"xy": (x - 0.41, y), "xytext": (from_x + 0.41, from_y)}
            axes.annotate("", **ends, arrowprops={"arrowstyle": "->", "color": "0.45"})
        frame = {"boxstyle": "round,pad=0.4", "facecolor": "#e8f0fe", "edgecolor": "#3b6fb6"}
        axes.text(x, y, title, ha="center", va="center", fontsize=9, color="black", bbox=frame)
    return axes


# --- the microphone ---------------------------------------------------------------------------------------------------

PAGE_S: Final = 3.0
"""Time that a page has to show the microphone, in seconds; a notebook that runs without a page waits so long, once."""
_without_page: WeakSet[Microphone] = WeakSet()


async def record(microphone: Microphone, seconds: float, *, instead: Audio, path: Path | None = None) -> Audio:
    """Record from the page's microphone; where there is none, return a sample recording and show the reason.

    Parameters
    ----------
    microphone : rtnb.Microphone
        With the processing that the browser is to apply.
    seconds : float
        Length.
    instead : ndarray, float32, shape (n_samples,)
        Sample recording, at 24 kHz; its first `seconds` are returned.
    path : Path, optional
        Also write a WAV file.

    Returns
    -------
    ndarray, float32, shape (n_samples,)
        At 24 kHz.
    """
    from IPython.display import display

    recording = asyncio.ensure_future(microphone.record(seconds))
    try:
        await asyncio.wait([recording], timeout=0.1 if microphone in _without_page else PAGE_S)
        if not recording.done() and microphone.state == "no page":
            _without_page.add(microphone)
            raise WidgetError("no page shows this notebook")
        clip = await recording
        source = _Line(f"Your microphone, {microphone.device_rate_hz:,} samples per second", "#1a7f37")
    except WidgetError as reason:
        recording.cancel()
        clip = instead[: ms_to_samples(1000 * seconds, rate_hz=24_000)].astype(np.float32)
        source = _Line(f"The sample recording: {reason}", "#b35900")
    display(source)  # type: ignore[no-untyped-call]
    if path is not None:
        write_wav(path, clip, rate_hz=24_000)
    return clip


def imitate_processing(audio: Audio) -> Audio:
    """Suppress noise and raise the level of a recording, as simply as possible; browsers do both better.

    Parameters
    ----------
    audio : ndarray, shape (n_samples,)
        Speech with pauses: the noise is what is left in the quietest fifth of them.

    Returns
    -------
    ndarray, float32, shape (n_samples,)
        The loudest tenth of the 20 ms frames is at -20 dB.

    Examples
    --------
    >>> noise = 0.01 * np.random.default_rng(0).standard_normal(24_000)
    >>> tone = 0.1 * np.sin(np.arange(24_000)) * (np.arange(24_000) < 12_000)
    >>> clean = imitate_processing(tone + noise)
    >>> bool(clean[16_000:].std() / clean[2_000:10_000].std() < 0.5 * noise.std() / tone[:12_000].std())
    True
    """
    _, _, spectrum = stft(audio, nperseg=512)
    power = abs(spectrum) ** 2
    noise = np.percentile(power, 20, axis=1, keepdims=True)
    _, quiet = istft(spectrum * np.clip(1 - 4 * noise / (power + 1e-12), 0.1, 1))
    frames = quiet[: len(audio) // 480 * 480].reshape(-1, 480)
    loud_db = 10 * np.log10(np.percentile((frames**2).mean(axis=1), 90) + 1e-12)
    return np.asarray(quiet[: len(audio)] * 10 ** ((-20 - loud_db) / 20), np.float32)


# --- scenes -----------------------------------------------------------------------------------------------------------

_Scene = Callable[[Session, Simulator], Awaitable[Response]]
"""Function that makes a request and returns the response, which may still be growing."""


async def _ask(session: Session, simulator: Simulator) -> Response:
    await session.conversation.item.create("Please count to five.")
    return await session.response.create()


async def _hesitate(session: Session, simulator: Simulator, *, answer_s: float = 15.0) -> Response:
    first, second = (simulator.speech(text).audio for text in ("Well, let me think.", "What is a delta?"))
    pause = np.zeros(ms_to_samples(700, rate_hz=24_000), np.float32)
    speech = np.concatenate([first, pause, second])
    return await session.say(speech, rate_hz=24_000, stream=True, timeout_s=answer_s)


async def _speak_at_16_khz(session: Session, simulator: Simulator) -> Response:
    samples = resample(simulator.speech("What is a delta?").audio, from_rate_hz=24_000, to_rate_hz=16_000)
    return await session.say(samples, rate_hz=24_000, stream=True)  # the mistake


async def _ask_for_the_weather(session: Session, simulator: Simulator) -> Response:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "name": "get_weather", "description": "Weather of a city.", "parameters": parameters}
    await session.tools.register(tool)  # a definition without a function
    await session.conversation.item.create("What is the weather in Lund?")
    return await session.response.create()


async def _ask_over_oneself(session: Session, simulator: Simulator) -> Response:
    response = await _ask(session, simulator)
    await session.send_raw({"type": "response.create"})  # session.response.create would wait for the end of the first
    return response


# --- troubles ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Fault of the service, the network or the client, with its symptom and its remedy."""

    symptom: str
    """Complaint of a user."""
    cause: str
    """Cause of the symptom."""
    look: str
    """Trace of the cause in the log."""
    remedy: str
    """Next step."""
    faults: tuple[str, ...] = ()
    """Faults of the simulator: see `rtnb.simulator.faults`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the session."""
    scene: _Scene = _ask
    latency: str = "fast"
    patience_s: float = PATIENCE_S
    """Deadline of the scene, in seconds."""


TROUBLES: Final[Mapping[str, Trouble]] = {
    "lost connection": Trouble(
        "The answer stops in the middle of a word.",
        "The connection vanished.",
        "audio deltas, and no response.done after them; nothing at all follows",
        "Connect again, and create the items of the old conversation in the new one.",
        faults=("close=1006@response.output_audio.delta:6",),
    ),
    "session over": Trouble(
        "After an hour the assistant falls silent.",
        "Every session has a longest life.",
        "an error event session_expired, then nothing",
        "Watch session.seconds_left and open the next session in time.",
        faults=("expire=60@response.output_audio.delta:3",),
    ),
    "slow network": Trouble(
        "The answer stutters.",
        "Deltas arrive later than they must be played.",
        "gap_ms between audio deltas larger than their audio_ms; plot_arrivals runs dry",
        "Buffer more before playing, or use WebRTC, which hides late packets.",
        faults=("latency=1000@response.output_audio.delta:3", "latency=1500@response.output_audio.delta:7"),
    ),
    "no end": Trouble(
        "The answer was heard, yet the program goes on waiting.",
        "The event that ends a response never came.",
        "response.created without its response.done",
        "Set a limit to every wait.",
        faults=("drop@response.done",),
        patience_s=7.0,
    ),
    "half a message": Trouble(
        "There is a click in the voice.",
        "One message was cut in two on its way: a proxy with a limit of size.",
        "a row 'unreadable' among the audio deltas",
        "Look at what stands between you and the service; keep the session, it goes on.",
        faults=("malformed@response.output_audio.delta:2",),
    ),
    "impatient": Trouble(
        "It answers before I have finished.",
        "The silence that ends a turn is shorter than a pause for thought.",
        "two speech_stopped for one question, and a response.done that was cancelled",
        "Raise silence_duration_ms above the speaker's pauses.",
        settings={"turn_detection": ServerVad(silence_duration_ms=200)},
        scene=_hesitate,
        latency="realistic",
    ),
    "deaf": Trouble(
        "I speak, and nothing happens.",
        "The threshold is so high that no speech is clear enough.",
        "input_audio_buffer.append again and again, and no speech_started",
        "Lower threshold; 0.5 is the usual value.",
        settings={"turn_detection": ServerVad(threshold=1.0, silence_duration_ms=900)},
        scene=partial(_hesitate, answer_s=1.5),
    ),
    "wrong rate": Trouble(
        "It does not understand a word I say.",
        "The samples were taken at 16 kHz and sent as if they were of 24 kHz.",
        "the audio_ms of all appended chunks add up to two thirds of what was spoken; it sounds high and hurried",
        "Say at which rate the samples were taken: session.say(samples, rate_hz=16_000).",
        settings={"turn_detection": ServerVad(silence_duration_ms=900)},
        scene=_speak_at_16_khz,
    ),
    "unanswered call": Trouble(
        "I ask for the weather, and it says nothing.",
        "The model called a function, and no result was sent back.",
        "response.function_call_arguments.done without a function_call_output after it",
        "Register the Python function itself, or create the function_call_output item and then a response.",
        scene=_ask_for_the_weather,
    ),
    "two at once": Trouble(
        "Sometimes my question is ignored.",
        "A response was asked for while another was still being made.",
        "an error event conversation_already_has_active_response between response.created and response.done",
        "Wait for response.done, or cancel first; session.response.create waits for you.",
        scene=_ask_over_oneself,
        latency="fast,audio_rate=2",  # the first answer must still be under way, however slow the machine is
    ),
}
"""Troubles by the name of their cause."""


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Case:
    """Scene that was run: the symptom, and the log to find the cause in."""

    log: EventLog
    """Every event."""
    response: Response | None
    """The response, complete or not; None if none was created."""
    error: Exception | None
    """The exception that ended the scene, if any."""
    _name: str

    @property
    def trouble(self) -> Trouble:
        """The trouble itself: the solution."""
        return TROUBLES[self._name]

    @property
    def symptom(self) -> str:
        """Complaint of the user."""
        return self.trouble.symptom

    def solve(self, cause: object) -> None:
        """Raise AssertionError unless `cause` names the trouble; the message says how the named one would show."""
        assert cause in TROUBLES, f"name the cause by its key in TROUBLES, such as {next(iter(TROUBLES))!r}"
        assert cause == self._name, f"{cause!r} would show {TROUBLES[str(cause)].look}"

    def __repr__(self) -> str:
        return f"<Case: {self.symptom} {self.log!r}>"

    def _repr_html_(self) -> str:
        raised = f"<br>The program got {escape(f'{type(self.error).__name__}: {self.error}')}" if self.error else ""
        return f"<p>“{escape(self.symptom)}”{raised}</p>"


async def act(trouble: str | int, *, patience_s: float | None = None) -> Case:
    """Run the scene of a trouble.

    Parameters
    ----------
    trouble : str or int
        Name in `TROUBLES`; or a number, for a trouble without its name. The same number gives the same trouble.
    patience_s : float, optional
        Deadline of the scene, in seconds; None takes the `patience_s` of the trouble.

    Returns
    -------
    Case
        The result. An exception that belongs to the trouble is in ``.error``.

    Raises
    ------
    KeyError
        No trouble has this name; the message lists the names.
    """
    name = random.Random(trouble).choice(list(TROUBLES)) if isinstance(trouble, int) else trouble
    if name not in TROUBLES:
        raise KeyError(f"no trouble is named {name!r}; names: {', '.join(TROUBLES)}")
    played = TROUBLES[name]
    simulator = Simulator(seed=9, latency=played.latency, faults=played.faults)
    response, error = None, None
    async with simulator, connect(simulator, **played.settings) as session:
        try:
            async with asyncio.timeout(played.patience_s if patience_s is None else patience_s):
                response = await played.scene(session, simulator)
                await response
        except (RtnbError, TimeoutError) as raised:
            error = raised
    return Case(session.log, response, error, name)
