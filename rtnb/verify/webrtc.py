"""Probes of WebRTC calls; where aiortc is missing or no media path is found: not tested."""

from __future__ import annotations

from typing import Any

from rtnb.protocol import ServerVad, events
from rtnb.verify.probe import OBSERVED, REFERENCE, probe
from rtnb.verify.wire import TOO_SOON, NotTested, Wire, check, require


def _call(target: Any, **options: Any) -> Any:
    try:
        from rtnb.verify.call import Call
    except ImportError as error:
        raise NotTested('aiortc is missing: pip install "rtnb[sim]"') from error
    return Call(target, **options)


async def _ended_early(wire: Wire) -> None:
    """Wait until playback is cleared."""
    event = await wire.until(events.OutputAudioBufferCleared, events.OutputAudioBufferStopped)
    if isinstance(event, events.OutputAudioBufferStopped):
        raise NotTested(TOO_SOON)


@probe(REFERENCE)
async def webrtc__answered(target: Any) -> None:
    """An offer is answered with 201, a session description and (GA) a `Location` that ends in the call's id."""
    call = _call(target)
    async with Wire(call):
        if target.dialect == "ga":
            check(call.status, 201, "HTTP status")
            check(call.location.rpartition("/")[2][:4], "rtc_", "beginning of the id in Location")
        check(call.body[:2], "v=", "beginning of the session description")


@probe(REFERENCE)
async def webrtc__settings_of_the_key(target: Any) -> None:
    """The data channel begins with `session.created`, with the settings of the ephemeral key."""
    async with Wire(_call(target, instructions="Answer in one word.")) as wire:
        check(wire.kinds()[0], "session.created", "first event")
        check(wire.session.instructions, "Answer in one word.", "instructions")


@probe(OBSERVED, usd=0.01)
async def webrtc__playout(target: Any) -> None:
    """Speech comes on the track; `output_audio_buffer.started` comes before `response.done`, `stopped` at the end."""
    call = _call(target)
    async with Wire(call) as wire:
        await wire.begin("Say: hello there.", events.OutputAudioBufferStarted)
        check("response.done" in wire.kinds(), False, "response.done before output_audio_buffer.started:")
        await wire.until(events.OutputAudioBufferStopped, timeout_s=60)
        check("response.done" in wire.kinds(), True, "response.done before output_audio_buffer.stopped:")
        check("response.output_audio.delta" in wire.kinds(), False, "audio deltas on the data channel:")
        require(call.loudest >= 0.01, f"a track with peaks of {call.loudest:.4f}", "audible speech")


@probe(OBSERVED, usd=0.02)
async def webrtc__interrupted(target: Any) -> None:
    """Speech during playback clears the output buffer, and the service truncates the item itself."""
    call = _call(target)
    async with Wire(call) as wire:
        await wire.update(turn_detection=ServerVad(silence_duration_ms=300))
        await wire.begin("Count slowly from one to fifty.", events.OutputAudioBufferStarted)
        call.microphone.speak()
        await _ended_early(wire)
        if "conversation.item.truncated" not in wire.kinds():
            await wire.until(events.ConversationItemTruncated)


@probe(REFERENCE, usd=0.02)
async def webrtc__cleared(target: Any) -> None:
    """`output_audio_buffer.clear` ends playback with `output_audio_buffer.cleared`."""
    async with Wire(_call(target)) as wire:
        await wire.begin("Count slowly from one to fifty.", events.OutputAudioBufferStarted)
        await wire.send(events.OutputAudioBufferClear())
        await _ended_early(wire)
