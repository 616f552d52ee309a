"""A kept session: its time axis and its conversation, made from the rows of a log. No sockets, no widgets."""

from rtnb.trace.conversation import Entries, Entry, to_json, to_srt, to_text, to_vtt
from rtnb.trace.recorder import keep, save_trace
from rtnb.trace.timeline import Timeline
from rtnb.trace.trace import Trace, Turn
from rtnb.trace.tracks import Track

__all__ = ["Entries", "Entry", "Timeline", "Trace", "Track", "Turn", "keep", "save_trace"]
__all__ += ["to_json", "to_srt", "to_text", "to_vtt"]
