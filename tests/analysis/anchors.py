"""Real speech by which turn detection was measured with Silero's own package before this code was written.

Meetings (14 clips): frame AUC 0.971, 0.975 at the best lag. Three spontaneous monologues, timed word by word, with 30
short clips (33 turns, 127 pauses) at threshold 0.5 and silence 192 / 512 / 704 / 992 ms: pauses cut 62 / 26 / 13 / 6 %,
delay P50 331 / 651 / 843 / 1131 ms.
"""

import json
from pathlib import Path

import numpy as np

from rtnb.analysis import FrameMetrics, Recording, Sweep, frame_metrics, from_segments, sweep
from rtnb.audio import read_wav
from rtnb.vad import FRAME_MS, speech_probabilities

MEETINGS = ("ami_dev00.wav", "ami_dev01.wav", "ami_trn01.wav")
MONOLOGUES = ("acoustic_corpus.wav", "cold_corpus.wav", "cold_corpus3.wav")
THRESHOLDS, SILENCES_MS = (0.3, 0.5, 0.7, 0.9), (192, 512, 704, 992)


def segments_ms(folder: Path) -> dict[str, list[tuple[float, float]]]:
    items = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["items"]
    return {one["file"]: [(1000 * start, 1000 * end) for start, end in one["speech"]] for one in items}


def meetings(folder: Path) -> dict[str, FrameMetrics]:
    """Each clip, and the frames of all: one threshold serves all clips, and one of them is nearly all speech."""
    speech, found, heard, labels = segments_ms(folder), {}, [], []
    for name in MEETINGS:
        audio, rate_hz = read_wav(folder / name)
        ahead_ms = FRAME_MS * sum(map(len, heard))
        heard.append(speech_probabilities(audio, rate_hz=rate_hz))
        labels += [(start + ahead_ms, end + ahead_ms) for start, end in speech[name]]
        found[name] = frame_metrics(heard[-1], speech=speech[name])
    return found | {"all": frame_metrics(np.concatenate(heard), speech=labels)}


def monologues(folder: Path) -> list[Recording]:
    """One turn each, in 0.6 s and 3 s of their own room noise."""
    speech = segments_ms(folder)
    made = []
    for name in MONOLOGUES:
        audio, rate_hz = read_wav(folder / name)
        made.append(from_segments(audio, speech[name], rate_hz=rate_hz, name=Path(name).stem).padded())
    return made


def table(folder: Path) -> Sweep:
    return sweep(
        monologues(folder),
        thresholds=THRESHOLDS,
        silences_ms=SILENCES_MS,
        prefixes_ms=[300],
        cache=False,
        progress=False,
    )
