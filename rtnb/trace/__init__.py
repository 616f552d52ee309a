"""A kept session: its time axis and its conversation, made from the rows of a log. No sockets, no widgets."""

from rtnb.trace.conversation import Entries, Entry, to_json, to_srt, to_text, to_vtt
from rtnb.trace.timeline import Timeline

__all__ = ["Entries", "Entry", "Timeline", "to_json", "to_srt", "to_text", "to_vtt"]
