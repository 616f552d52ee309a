"""A kept session: its time axis and its conversation, made from the rows of a log. No sockets, no widgets."""

from rtnb.trace.comparison import Comparison, compare
from rtnb.trace.conversation import Entries, Entry, to_srt, to_text, to_vtt
from rtnb.trace.recorder import keep, save_trace
from rtnb.trace.rules import Finding, Findings, findings
from rtnb.trace.timeline import Timeline, Track
from rtnb.trace.trace import Trace

__all__ = ["Comparison", "Entries", "Entry", "Finding", "Findings", "Timeline", "Trace", "Track", "compare"]
__all__ += ["findings", "keep", "save_trace", "to_srt", "to_text", "to_vtt"]
