"""Barge-in lab on real recordings: ``python -m tests.benchmarks.overlaps``

Words, fillers ("um", "uh"), backchannels ("hm"), laughter, breaths, room noise and a synthetic voice as the assistant's
echo, through the local model of `server_vad` at several thresholds and two pairs (listening / speaking). Soft words and
a whisper while the assistant is silent are the kind "turn". Each row: the share of clips that start a turn, its 90 %
interval over recordings, and the median latency. Fewer than 8 recordings: not shown. The folder has no coughs.

Places in the monologues come from their word labels. Those in the ``mfa_*`` clips were marked for this benchmark from
level and pitch, along the transcripts in the test suite of the Montreal Forced Aligner (MIT licence); most of these
clips are of one speaker.
"""

from dataclasses import replace

from rtnb.analysis.overlaps import Overlap, overlap_lab
from rtnb.analysis.recordings import from_segments
from rtnb.audio import read_wav
from rtnb.protocol.values import ServerVad
from tests.benchmarks.stage import SPEECH, labelled

PLACES = {  # kind -> file -> (start, stop) in seconds
    "interruption": {
        "mfa_breaths": [(4.35, 5.05), (6.91, 7.85), (11.0, 11.95)],
        "mfa_breathy": [(0.7, 2.7)],
        "mfa_cutoff": [(4.5, 5.97), (7.45, 8.3), (12.2, 13.0), (16.65, 17.8)],
        "mfa_erpause": [(0.8, 2.7), (3.1, 3.5)],
        "mfa_internalsil": [(2.45, 3.6), (7.15, 8.65)],
        "mfa_laughter": [(2.05, 3.15), (7.6, 8.9)],
        "mfa_long": [(1.3, 2.0), (7.85, 9.05)],
        "mfa_surround": [(1.0, 3.2), (4.15, 6.3), (7.5, 9.5), (10.7, 11.8)],
        "mfa_uh": [(1.2, 2.3)],
        "mfa_uhuh": [(0.95, 1.65), (5.45, 6.1)],
        "mfa_uhum": [(0.95, 1.75)],
        "mfa_um": [(1.2, 2.8), (6.22, 6.8)],
    },
    "filler": {
        "mfa_uh": [(2.35, 3.6)],
        "mfa_uhuh": [(1.85, 2.15), (2.58, 2.87), (3.17, 3.57), (4.3, 5.28)],
        "mfa_uhum": [(1.8, 2.3), (2.35, 3.0), (3.05, 3.8), (6.22, 6.65)],
        "mfa_um": [(3.72, 5.2)],
    },
    "backchannel": {"mfa_uhum": [(3.92, 4.7), (5.05, 5.95)]},
    "laughter": {"mfa_laughter": [(0.58, 1.95), (3.6, 5.2), (6.3, 7.45), (9.3, 10.0)]},
    "breath": {"mfa_breaths": [(1.0, 1.6), (2.2, 3.35), (5.75, 6.5), (10.15, 10.75)]},
}
FILLERS = {"uh", "um", "er"}
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


def marked() -> list[Overlap]:
    """The pieces of `PLACES`."""
    clips = []
    for kind, files in PLACES.items():
        for name, spans in files.items():
            audio, rate_hz = read_wav(SPEECH / f"{name}.flac")
            pieces = (audio[int(start * rate_hz) : int(stop * rate_hz)] for start, stop in spans)
            clips += [Overlap(piece, rate_hz=rate_hz, kind=kind, group=name) for piece in pieces]
    return clips


def monologues() -> list[Overlap]:
    """Phrases between pauses of 0.3 s as interruptions, and the fillers."""
    clips = []
    for item, audio, rate_hz in labelled():
        words = [one for one in item["words"] if one[2].islower()]  # capitals are phones
        for kind, segments in (
            ("interruption", [one for one in words if one[2] not in FILLERS]),
            ("filler", [one for one in words if one[2] in FILLERS]),
        ):
            spans = [(1000 * start, 1000 * stop) for start, stop, _ in segments]
            recording = from_segments(audio, spans, rate_hz=rate_hz, name=item["file"], turn_gap_ms=300)
            clips += Overlap.of_turns(recording, kind=kind)
    return clips


def turns(interruptions: list[Overlap]) -> list[Overlap]:
    """The words once more, 20 dB softer (a speaker far from the microphone), while the assistant is silent."""
    softly = [replace(one, audio=0.1 * one.audio, kind="turn") for one in interruptions if one.kind == "interruption"]
    for name, start, stop in (("mfa_whisper", 0.7, 2.7), ("mfa_creaky", 0.7, 4.5)):
        audio, rate_hz = read_wav(SPEECH / f"{name}.flac")
        piece = audio[int(start * rate_hz) : int(stop * rate_hz)]
        softly.append(Overlap(piece, rate_hz=rate_hz, kind="turn", group=name))
    return softly


def noise() -> list[Overlap]:
    """Two-second pieces of an office."""
    audio, rate_hz = read_wav(SPEECH / "office-ambience-24000-mono.mp3")
    starts = range(0, len(audio) - 2 * rate_hz, 2 * rate_hz)
    pieces = (audio[at : at + 2 * rate_hz] for at in starts)
    return [Overlap(piece, rate_hz=rate_hz, kind="noise", group="office") for piece in pieces]


def echo() -> list[Overlap]:
    """Two synthetic voices as the assistant, 20, 30 and 40 dB below their playback, in pieces of two seconds."""
    clips = []
    for name in ("arc-easy-q237-tts.wav", "1-tardigrades.wav"):
        audio, rate_hz = read_wav(SPEECH / name)
        for at in range(rate_hz, len(audio) - rate_hz, 2 * rate_hz):
            clips += Overlap.of_echo(audio[at : at + 2 * rate_hz], rate_hz=rate_hz, group=name)
    return clips


def main() -> None:
    settings = [ServerVad(threshold=one) for one in THRESHOLDS]
    pairs = [(ServerVad(threshold=0.5), ServerVad(threshold=one)) for one in (0.7, 0.9)]
    clips = [*monologues(), *marked()]
    table = overlap_lab([*clips, *turns(clips), *noise(), *echo()], [*settings, *pairs])
    table[["rate", "low", "high"]] *= 100
    columns = {"n": "clips", "n_groups": "recordings", "rate": "percent"}
    print(table.rename(columns=columns).round(0).to_string(index=False, na_rep="not shown"))


if __name__ == "__main__":
    main()
