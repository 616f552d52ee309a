"""What turn detection does with real speech: ``python -m tests.benchmarks.anchors [FOLDER]``.

Prints two tables: how well single frames tell speech from the rest in far-field meetings, and whom
the server VAD cuts off, how late it answers, in three spontaneous monologues timed word by word. The folder holds the
recordings and their labels.json; default: RTNB_SPEECH, or the folder of recordings beside the repository.

For comparison, figures measured with Silero's own package before this was written: meetings (14 clips) frame AUC 0.971,
0.975 at the best lag; the monologues with 30 short clips (33 turns, 127 pauses) at threshold 0.5 and silence 192 / 512
/ 704 / 992 ms: pauses cut 62 / 26 / 13 / 6 %, delay P50 331 / 651 / 843 / 1131 ms.
"""

import json
import sys
from pathlib import Path

import numpy as np

from rtnb.analysis import FrameMetrics, Recording, Sweep, frame_metrics, from_segments, sweep
from rtnb.audio import read_wav
from rtnb.vad import FRAME_MS, speech_probabilities
from tests.benchmarks.stage import SPEECH

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


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else SPEECH
    frames = meetings(folder)
    print("Meetings, far field: frames of 32 ms\n")
    print(f"{'clip':16}{'speech':>8}{'other':>8}{'AUC':>8}{'best':>8}{'at ms':>7}{'AP':>8}{'F1 at 0.5':>11}")
    for name, one in frames.items():
        print(
            f"{name:16}{one.n_speech:8}{one.n_other:8}{one.auc:8.3f}{one.best_lag_auc:8.3f}{one.best_lag_ms:7}"
            f"{one.average_precision:8.3f}{one.f1:11.3f}"
        )
    found = table(folder)
    n, m = found.n_turns, len(found.pause_turn)
    print(f"\nMonologues: {n} turns, {m} pauses of at least 100 ms\n")
    print(
        f"{'threshold':>9}{'silence ms':>12}{'turns cut':>11}{'pauses cut':>12}{'P50 ms':>8}{'P90 ms':>8}{'no-fire':>9}"
    )
    for t, threshold in enumerate(THRESHOLDS):
        for s, silence in enumerate(SILENCES_MS):
            cut, pauses = int(found.cut_off[t, s].sum()), int(found.pause_cut[t, s].sum())
            p50, p90, none = (
                found.grid(metric).iloc[t, s] for metric in ("delay_p50_ms", "delay_p90_ms", "no_fire_rate")
            )
            print(
                f"{threshold:9}{silence:12}{cut:8}/{n:<2}{pauses:6}/{m} = {pauses / m:3.0%}{p50:6.0f}{p90:8.0f}"
                f"{none * n:6.0f}/{n:<2}"
            )
    print(f"\nAUC of all clips at least 0.95: {frames['all'].auc >= 0.95}")


if __name__ == "__main__":
    main(sys.argv[1:])
