"""What a calibration found about a service's server VAD, and the file it is kept in.

The file is JSON, one per deployment: ``version``, ``deployment`` (host and model, no key), ``constants``, ``phase_ms``
and the figures of `Calibration`. It lies in ``~/.rtnb/calibrations``, or where RTNB_CALIBRATIONS says.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from rtnb.errors import RtnbError
from rtnb.vad import VadConstants

FILE_VERSION = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class Calibration:
    """How a service's server VAD differs from the local model; print it to read what was found."""

    deployment: str
    """Which service: host and model."""
    constants: VadConstants
    """What fits best: for `sweep` and `server_vad_segments`."""
    phase_ms: int
    """How much later than the stream the service's frames begin, of 32 ms."""
    like: dict[str, tuple[Any, ...]]
    """For each constant, the values that fit about as well: where they are several, the recordings do not tell them
    apart."""
    start_f1: float
    """Share of starts that service and fitted model tell alike, within ±96 ms."""
    stop_f1: float
    """The same for stops."""
    same_frame: float
    """Share of starts and stops that both tell in the same frame."""
    start_f1_before: float
    """The same with the model's own constants."""
    stop_f1_before: float
    same_frame_before: float
    n_starts: int
    """Starts the service told."""
    n_stops: int
    n_settings: int
    """Settings that were tried."""
    audio_s: float
    """Seconds of audio sent."""
    ignored: dict[str, Any]
    """Settings the service does not follow, and the value it seems to keep."""
    anomalies: tuple[str, ...]
    """What else is odd, in words."""

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write it to a file.

        Parameters
        ----------
        path : path, optional
            None: the file of this deployment, where `Calibration.stored` finds it.

        Returns
        -------
        Path
        """
        place = _place(self.deployment) if path is None else Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"version": FILE_VERSION, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        RtnbError
            The file is no calibration, or one of a newer version.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            if facts["version"] > FILE_VERSION:
                raise RtnbError(
                    f"{path} is a calibration of version {facts['version']}; this rtnb reads {FILE_VERSION}"
                )
            facts["constants"] = VadConstants(**facts["constants"])
            facts["like"] = {name: tuple(values) for name, values in facts["like"].items()}
            facts["anomalies"] = tuple(facts["anomalies"])
            return cls(**{one.name: facts[one.name] for one in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise RtnbError(f"{path} is no calibration: {type(error).__name__}: {error}").with_hint(
                "Calibrate again: await rtnb.calibrate(session, recordings)."
            ) from error

    @classmethod
    def stored(cls, deployment: str) -> Calibration | None:
        """The calibration saved for a deployment, None where there is none."""
        place = _place(deployment)
        return cls.load(place) if place.is_file() else None

    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            (name, _fitted(getattr(self.constants, name, self.phase_ms), like)) for name, like in self.like.items()
        ]
        facts.append(("starts alike", _alike(self.start_f1, self.start_f1_before, self.n_starts)))
        facts.append(("stops alike", _alike(self.stop_f1, self.stop_f1_before, self.n_stops)))
        facts.append(
            ("same frame", f"{100 * self.same_frame:.0f} % ({100 * self.same_frame_before:.0f} % before the fit)")
        )
        facts.append(("basis", f"{self.audio_s:.0f} s of audio under {self.n_settings} settings"))
        return [*facts, *(("odd", anomaly) for anomaly in self.anomalies)]

    def __repr__(self) -> str:
        lines = [f"  {name + ':':20} {text}" for name, text in self._facts()]
        return "\n".join([f"Calibration of {self.deployment}", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._facts()
        )
        return f"<p><b>Calibration of {escape(self.deployment)}</b></p><table>{rows}</table>"


def _place(deployment: str) -> Path:
    folder = os.environ.get("RTNB_CALIBRATIONS") or Path.home() / ".rtnb" / "calibrations"
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', deployment)}.json"


def _fitted(value: Any, like: tuple[Any, ...]) -> str:
    return f"{value}" if len(like) <= 1 else f"{value} ({', '.join(map(str, like))} fit about as well)"


def _alike(f1: float, before: float, n: int) -> str:
    return f"F1 {f1:.2f} within ±96 ms ({before:.2f} before the fit; {n} told)"
