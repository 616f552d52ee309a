"""Probes of a session: each checks one statement of the documentation; its first line says it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any, Final

from rtnb.errors import AuthenticationError, ConnectError, ConnectionClosed
from rtnb.protocol import SemanticVad, ServerVad, events
from rtnb.protocol.events import UnknownEvent
from rtnb.protocol.values import Tools, Transcription
from rtnb.transport.endpoint import read_endpoint
from rtnb.verify.probe import COSTS, NOWHERE, OBSERVED, REFERENCE, REPORTED, TOOL, plain, post, probe
from rtnb.verify.wire import PATIENCE_S, TOO_SOON, Different, NotTested, Wire, check, require

TEXT: Final[dict[str, Any]] = {"output_modalities": ("text",)}
"""Setting of a response without speech."""

# --- admission --------------------------------------------------------------------------------------------------------


@probe(REFERENCE)
async def admission__wrong_key(target: Any) -> None:
    """A wrong key is refused."""
    try:
        wrong = replace(plain(target), api_key="wrong-key-of-a-conformance-probe")
    except TypeError as error:
        raise NotTested(f"the target takes no key ({error})") from error
    try:
        transport = await wrong.open()
    except AuthenticationError:
        return
    except ConnectError as error:
        raise Different(f"{error}", "a refusal of the key") from error
    try:  # OpenAI opens the socket, sends an error and closes
        first = json.loads(await asyncio.wait_for(transport.receive(), PATIENCE_S))
    except (ConnectionClosed, TimeoutError):
        return
    finally:
        await transport.close()
    check(first.get("type"), "error", "first event with a wrong key:")


@probe(REFERENCE)
async def session__created_first(wire: Wire) -> None:
    """`session.created` is the first event, with an id and the time at which the session ends."""
    check(wire.kinds()[0], "session.created")
    session = wire.raw[0]["session"]
    require(str(session.get("id", "")).startswith("sess_"), f"id {session.get('id')!r}", "an id that begins with sess_")
    if not isinstance(session.get("expires_at"), int):
        raise Different(f"expires_at {session.get('expires_at')!r}", "Unix seconds")


@probe(OBSERVED)
async def session__defaults(wire: Wire) -> None:
    """A session begins with server VAD, threshold 0.5, prefix 300 ms, PCM at 24 kHz and a voice."""
    detection = wire.session.turn_detection
    check(type(detection), ServerVad, "turn detection")
    assert isinstance(detection, ServerVad)
    check((detection.threshold, detection.prefix_padding_ms), (0.5, 300), "threshold and prefix")
    check(wire.session.input_format.type, "audio/pcm", "input format")
    require(bool(wire.session.voice), "no voice", "a voice")


@probe(REFERENCE, dialects=("ga",))
async def session__type_and_object(wire: Wire) -> None:
    """The session object has type "realtime" and object "realtime.session"."""
    session = wire.raw[0]["session"]
    check((session.get("type"), session.get("object")), ("realtime", "realtime.session"))


@probe(REFERENCE)
async def session__update_merges(wire: Wire) -> None:
    """An update changes only the fields it names, and `session.updated` holds the whole session."""
    before = wire.session
    updated = (await wire.update(instructions="Answer in one word.")).session
    check(updated.instructions, "Answer in one word.", "instructions")
    check(updated.voice, before.voice, "voice")
    check(updated.turn_detection, before.turn_detection, "turn detection")


@probe(REFERENCE)
async def session__turn_detection_merges(wire: Wire) -> None:
    """Fields of the turn detection that an update leaves out keep their values."""
    detection: Any = (await wire.update(turn_detection=ServerVad(silence_duration_ms=640))).session.turn_detection
    check((detection.silence_duration_ms, detection.threshold), (640, 0.5), "silence and threshold")


@probe(REFERENCE)
async def session__turn_detection_off(wire: Wire) -> None:
    """`turn_detection: null` switches turn detection off."""
    check((await wire.update(turn_detection=None)).session.turn_detection, None, "turn detection")


@probe(REFERENCE)
async def session__semantic_vad(wire: Wire) -> None:
    """Turn detection can change to `semantic_vad` and keeps its eagerness."""
    detection: Any = (await wire.update(turn_detection=SemanticVad(eagerness="high"))).session.turn_detection
    check((detection.type, detection.eagerness), ("semantic_vad", "high"), "turn detection")


@probe(REFERENCE)
async def session__tools_cleared(wire: Wire) -> None:
    """An empty list removes the tools."""
    await wire.update(tools=Tools([TOOL]))
    check(tuple((await wire.update(tools=Tools())).session.tools or ()), (), "tools")


@probe(REFERENCE)
async def session__transcription_on_and_off(wire: Wire) -> None:
    """Input transcription is off at first, can be switched on, and off again with null."""
    heard = wire.session.audio and wire.session.audio.input
    check((heard and heard.transcription) or None, None, "transcription")
    updated = (await wire.update(transcription=Transcription(model="whisper-1"))).session
    check(updated.audio.input.transcription.model, "whisper-1", "model")
    updated = (await wire.update(transcription=None)).session
    check(updated.audio.input.transcription or None, None, "transcription")


# --- items ------------------------------------------------------------------------------------------------------------


@probe(REFERENCE)
async def items__announced(wire: Wire) -> None:
    """A created item is announced: `added` and `done` in GA, `created` in the preview."""
    first = len(wire.events)
    await wire.write("Hello.")
    ga = ["conversation.item.added", "conversation.item.done"]
    check(wire.kinds(first), ga if wire.dialect == "ga" else ["conversation.item.created"], "events")


@probe(REFERENCE)
async def items__order(wire: Wire) -> None:
    """`previous_item_id` names the item before; "root" puts an item in front."""
    one, two = await wire.write("One."), await wire.write("Two.")
    check(two.previous_item_id, one.item.id, "previous_item_id")
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Zero."}]}
    zero = await wire.create(item, previous_item_id="root")
    check(zero.previous_item_id or None, None, "previous_item_id")


@probe(REFERENCE)
async def items__deleted(wire: Wire) -> None:
    """A deleted item is gone: deleting it again is an error."""
    item_id = str((await wire.write("Hello.")).item.id)
    for expected in (events.ConversationItemDeleted, events.Error):
        await wire.send(events.ConversationItemDelete(item_id=item_id))
        check(type(await wire.next()), expected, "event")


@probe(REFERENCE)
async def items__retrieved(wire: Wire) -> None:
    """An item can be read back with its content."""
    item_id = str((await wire.write("Read me back.")).item.id)
    await wire.send(events.ConversationItemRetrieve(item_id=item_id))
    item = (await wire.until(events.ConversationItemRetrieved)).item
    check(item.content[0].text, "Read me back.", "text")


@probe(REFERENCE, dialects=("ga",))
async def items__image(wire: Wire) -> None:
    """A user's message can hold an image."""
    part = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
    added = await wire.create({"type": "message", "role": "user", "content": [part]})
    check(added.item.content[0].type, "input_image", "content")


PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one pixel
)

# --- responses --------------------------------------------------------------------------------------------------------

TEXT_ORDER: Final = [
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
]


@probe(OBSERVED, usd=0.001)
async def response__text_order(wire: Wire) -> None:
    """The events of a written response come in their order."""
    first = len(wire.events)
    await wire.ask("Say yes.", **TEXT)
    found = [kind for kind in wire.kinds(first) if kind in TEXT_ORDER]
    check(found, TEXT_ORDER, "events")


@probe(OBSERVED, usd=0.01)
async def response__audio_order(wire: Wire) -> None:
    """The events of a spoken response come in their order; sound and transcript may end in either order."""
    first = len(wire.events)
    await wire.ask("Say yes.")
    found = [kind for kind in dict.fromkeys(wire.kinds(first)) if kind.startswith("response.")]
    ends = {"response.output_audio.done", "response.output_audio_transcript.done"}
    check({"response.output_audio.delta", *ends} - set(found), set(), "missing events")
    order = [kind for kind in found if kind in TEXT_ORDER]
    check(order, [kind for kind in TEXT_ORDER if "text" not in kind], "events")
    last = max(map(found.index, ends))
    late = "an end of sound or transcript after content_part.done"
    require(last < found.index("response.content_part.done"), late, "both before it")


@probe(REFERENCE, usd=0.001)
async def response__ids(wire: Wire) -> None:
    """All events of a response name it and its item."""
    done = await wire.ask("Say yes.", **TEXT)
    of_response = [raw["response_id"] for raw in wire.raw if "response_id" in raw]
    check(set(of_response), {done.response.id}, "response_id")
    deltas = wire.found(events.ResponseOutputTextDelta)
    check({one.item_id for one in deltas}, {done.response.output[0].id}, "item_id")


@probe(OBSERVED, usd=0.01)
async def response__audio(wire: Wire) -> None:
    """A spoken response has a transcript and audio in whole samples; its deltas joined are its transcript."""
    done = await wire.ask("Say: hello there.")
    check(done.response.status, "completed", "status")
    audio = wire.found(events.ResponseOutputAudioDelta)
    require(bool(audio), "no audio", "response.output_audio.delta")
    check({len(one.delta) % 2 for one in audio}, {0}, "bytes of a delta modulo 2")
    words = "".join(one.delta for one in wire.found(events.ResponseOutputAudioTranscriptDelta))
    finished = wire.found(events.ResponseOutputAudioTranscriptDone)[0]
    check(words, finished.transcript, "transcript")


@probe(REFERENCE, usd=0.001)
async def response__text_has_no_audio(wire: Wire) -> None:
    """A response with text alone sends no audio."""
    await wire.ask("Say yes.", **TEXT)
    check([one for one in wire.kinds() if "audio.delta" in one], [], "audio events")


@probe(REFERENCE, usd=0.002)
async def response__usage(wire: Wire) -> None:
    """The usage of a response adds up."""
    usage = (await wire.ask("Say yes.", **TEXT)).response.usage
    check(usage.total_tokens, usage.input_tokens + usage.output_tokens, "total_tokens")
    details = usage.input_token_details
    parts = [details.text_tokens, details.audio_tokens, details.image_tokens]
    check(usage.input_tokens, sum(part for part in parts if isinstance(part, int)), "input_tokens")
    cached = details.cached_tokens or 0
    require(cached <= usage.input_tokens, f"{cached} cached of {usage.input_tokens}", "a part of the input")


async def _tokens_of_speech(wire: Wire, bytes_per_s: int) -> None:
    usage = (await wire.ask("Count from one to ten.")).response.usage
    size = sum(len(one.delta) for one in wire.found(events.ResponseOutputAudioDelta))
    tokens, expected = usage.output_token_details.audio_tokens, size / bytes_per_s * 20
    close = 0.7 * expected - 10 <= tokens <= 1.3 * expected + 10
    require(close, f"{tokens} audio tokens for {size} bytes", f"about {expected:.0f}")


@probe(COSTS, usd=0.02)
async def response__usage_of_speech(wire: Wire) -> None:
    """A second of the assistant's speech, 48,000 bytes of PCM, is about 20 audio tokens."""
    await _tokens_of_speech(wire, 48_000)


@probe(COSTS, usd=0.02)
async def response__g711(wire: Wire) -> None:
    """G.711 output has 8,000 bytes per second."""
    check((await wire.update(output_format="audio/pcmu")).session.output_format.type, "audio/pcmu", "format")
    await _tokens_of_speech(wire, 8_000)


@probe(OBSERVED, usd=0.001)
async def response__rate_limits(wire: Wire) -> None:
    """`rate_limits.updated` comes with a response and names the tokens that are left."""
    await wire.ask("Say yes.", **TEXT)
    if not wire.found(events.RateLimitsUpdated):
        await wire.until(events.RateLimitsUpdated, timeout_s=3)
    limits = wire.found(events.RateLimitsUpdated)[0].rate_limits
    check("tokens" in {limit.name for limit in limits}, True, "a limit of tokens")


@probe(REFERENCE, usd=0.001)
async def response__metadata(wire: Wire) -> None:
    """Metadata of `response.create` comes back in `response.done`."""
    done = await wire.ask("Say yes.", **TEXT, metadata={"probe": "1"})
    check(dict(done.response.metadata or {}), {"probe": "1"}, "metadata")


@probe(REFERENCE, usd=0.001)
async def response__outside(wire: Wire) -> None:
    """A response with ``conversation: "none"`` leaves the conversation as it is."""
    await wire.write("Say yes.")
    first = len(wire.events)
    done = await wire.respond(conversation="none", **TEXT)
    check(done.response.conversation_id or None, None, "conversation_id")
    check([one for one in wire.kinds(first) if one.startswith("conversation.item")], [], "items")


@probe(REPORTED, usd=0.01)
async def response__one_at_a_time(wire: Wire) -> None:
    """A second response of the conversation is refused while one is in progress."""
    await wire.begin("Count from one to twenty.", events.ResponseCreated)
    await wire.send(events.ResponseCreate())
    while not isinstance(event := await wire.next(), events.Error):
        if isinstance(event, events.ResponseDone):
            raise NotTested(TOO_SOON)
    check(event.error.code, "conversation_already_has_active_response", "code")


@probe(REFERENCE, usd=0.01)
async def response__cancelled(wire: Wire) -> None:
    """A cancelled response ends with status "cancelled" and the reason "client_cancelled"."""
    await wire.begin("Count from one to fifty.")
    await wire.send(events.ResponseCancel())
    response = await wire.cut_short()
    check(response.status, "cancelled", "status")
    check(response.status_details.reason, "client_cancelled", "reason")


@probe(REFERENCE, usd=0.001)
async def response__token_limit(wire: Wire) -> None:
    """A response that reaches its token limit is "incomplete" because of "max_output_tokens", and not longer."""
    done = await wire.ask("Describe the sea in fifty words.", **TEXT, max_output_tokens=5)
    check(done.response.status, "incomplete", "status")
    check(done.response.status_details.reason, "max_output_tokens", "reason")
    tokens = done.response.usage.output_tokens
    require(tokens <= 5, f"{tokens} tokens", "at most 5")


@probe(REFERENCE, usd=0.01)
async def response__truncated(wire: Wire) -> None:
    """An assistant's audio can be truncated to what was heard; its transcript is then gone."""
    await wire.ask("Count from one to ten.")
    item_id = wire.found(events.ResponseOutputAudioDelta)[0].item_id
    await wire.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=200))
    event = await wire.until(events.ConversationItemTruncated)
    check((event.item_id, event.audio_end_ms), (item_id, 200))


@probe(REPORTED, usd=0.01)
async def response__truncated_too_late(wire: Wire) -> None:
    """Truncating beyond the end of the audio is an error."""
    await wire.ask("Say yes.")
    item_id = wire.found(events.ResponseOutputAudioDelta)[0].item_id
    await wire.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=600_000))
    await wire.refused("conversation.item.truncated")


@probe(REPORTED, usd=0.01)
async def response__voice_frozen(wire: Wire) -> None:
    """The voice cannot change once the assistant has spoken; the same voice may be sent again."""
    await wire.ask("Say yes.")
    voice = wire.session.voice
    await wire.update(voice=voice)
    other = "echo" if voice != "echo" else "alloy"
    await wire.send(events.SessionUpdate(session=type(wire.session).of(voice=other)))
    check((await wire.refused("session.updated")).error.code, "cannot_update_voice", "code")


@probe(REFERENCE, usd=0.002)
async def response__function_call(wire: Wire) -> None:
    """A required tool is called: arguments in deltas and whole, valid JSON, and an item of type function_call."""
    await wire.update(tools=Tools([TOOL]), tool_choice="required")
    done = await wire.ask("What is the weather in Lund?", **TEXT)
    arguments = wire.found(events.ResponseFunctionCallArgumentsDone)
    require(bool(arguments), "no function call", "response.function_call_arguments.done")
    deltas = wire.found(events.ResponseFunctionCallArgumentsDelta)
    check("".join(one.delta for one in deltas), arguments[0].arguments, "arguments")
    json.loads(arguments[0].arguments)
    check(done.response.output[0].type, "function_call", "output item")


@probe(REFERENCE, usd=0.002)
async def response__function_output(wire: Wire) -> None:
    """The output of a function is an item, and the next response is a message."""
    await wire.update(tools=Tools([TOOL]))
    done = await wire.ask("What is the weather in Lund?", **TEXT, tool_choice="required")
    call = done.response.output[0]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "clear"}'}
    added = await wire.create(output)
    check((added.item.type, added.item.call_id), ("function_call_output", call.call_id), "item")
    done = await wire.respond(output_modalities=("text",), tool_choice="none")
    check([item.type for item in done.response.output], ["message"], "output")


@probe(REFERENCE, dialects=("ga",))
async def mcp__unreachable_server(wire: Wire) -> None:
    """The tools of an MCP server that does not exist cannot be listed: `mcp_list_tools.failed`, and an empty list."""
    first = len(wire.events)
    await wire.update(tools=Tools([{"type": "mcp", "server_label": "nowhere", "server_url": NOWHERE}]))
    done = await wire.until(events.ConversationItemDone, timeout_s=60)
    check((done.item.type, done.item.tools or ()), ("mcp_list_tools", ()), "item")
    wanted = ["mcp_list_tools.in_progress", "conversation.item.added", "mcp_list_tools.failed"]
    found = [kind for kind in wire.kinds(first) if kind != "session.updated"]
    check(found, [*wanted, "conversation.item.done"], "events")


# --- speech -----------------------------------------------------------------------------------------------------------


@probe(OBSERVED, usd=0.003)
async def speech__turn(wire: Wire) -> None:
    """A spoken turn: started, stopped, committed, item; all name one item; times follow the 32 ms frames."""
    detection = ServerVad(silence_duration_ms=480, create_response=False)
    await wire.update(turn_detection=detection)
    first = len(wire.events)
    end_ms = await wire.speak()
    await wire.until(events.ConversationItemAdded, events.ConversationItemCreated)
    wanted = [f"input_audio_buffer.{what}" for what in ("speech_started", "speech_stopped", "committed")]
    check([kind for kind in wire.kinds(first) if kind.startswith("input_audio_buffer")], wanted, "events")
    started = wire.found(events.InputAudioBufferSpeechStarted)[0]
    stopped = wire.found(events.InputAudioBufferSpeechStopped)[0]
    check(stopped.item_id, started.item_id, "item_id")
    check(stopped.audio_end_ms % 32, 0, "audio_end_ms modulo 32")
    late_ms = stopped.audio_end_ms - end_ms
    came = f"the turn ended {late_ms:.0f} ms after the speech"
    require(400 <= late_ms <= 1200, came, "400 to 1200 ms with a silence of 480 ms")


@probe(REFERENCE, usd=0.003)
async def speech__no_response_unless_asked(wire: Wire) -> None:
    """With `create_response: false` the end of a turn creates no response."""
    await wire.update(turn_detection=ServerVad(silence_duration_ms=300, create_response=False))
    await wire.speak()
    await wire.until(events.InputAudioBufferCommitted)
    found = [one for one in await wire.quiet(1.5) if isinstance(one, events.ResponseCreated)]
    check(len(found), 0, "responses")


@probe(REFERENCE, usd=0.01)
async def speech__response(wire: Wire) -> None:
    """The end of a turn creates a response, unless that is switched off."""
    await wire.update(turn_detection=ServerVad(silence_duration_ms=300))
    await wire.speak()
    await wire.until(events.ResponseCreated)


@probe(REFERENCE, usd=0.003)
async def speech__push_to_talk(wire: Wire) -> None:
    """Without turn detection nothing happens until the client commits; then the audio is an item."""
    await wire.update(turn_detection=None)
    await wire.speak(quiet_ms=200, paced=False)
    check(await wire.quiet(0.5), [], "events")
    await wire.commit()
    await wire.until(events.InputAudioBufferCommitted)
    await wire.until(events.ConversationItemAdded, events.ConversationItemCreated)


async def _cannot_commit(wire: Wire) -> None:
    await wire.commit()
    event = await wire.next()
    check(event.type, "error")
    check(event.error.code, "input_audio_buffer_commit_empty", "code")


@probe(REFERENCE, usd=0.001)
async def speech__cleared(wire: Wire) -> None:
    """A cleared buffer is empty: committing it is an error."""
    await wire.update(turn_detection=None)
    await wire.speak(quiet_ms=0, paced=False)
    await wire.send(events.InputAudioBufferClear())
    await wire.until(events.InputAudioBufferCleared)
    await _cannot_commit(wire)


@probe(REPORTED)
async def speech__too_short(wire: Wire) -> None:
    """Less than 100 ms of audio cannot be committed."""
    await wire.update(turn_detection=None)
    await wire.send(events.InputAudioBufferAppend(audio=bytes(48 * 50)))
    await _cannot_commit(wire)


@probe(REFERENCE, usd=0.02)
async def speech__interrupts(wire: Wire) -> None:
    """Speech during a response ends it with the reason "turn_detected"."""
    await wire.update(turn_detection=ServerVad(silence_duration_ms=300))
    await wire.begin("Count slowly from one to fifty.")
    response, _ = await asyncio.gather(wire.cut_short(), wire.speak(quiet_ms=200))
    check((response.status, response.status_details.reason), ("cancelled", "turn_detected"))


@probe(REFERENCE, usd=0.005)
async def speech__transcription(wire: Wire) -> None:
    """With input transcription, a turn ends in a transcript or in a failure that says why; its usage is its own."""
    await wire.update(turn_detection=None, transcription=Transcription(model="whisper-1"))
    await wire.speak(quiet_ms=200, paced=False)
    await wire.commit()
    completed = events.ConversationItemInputAudioTranscriptionCompleted
    event = await wire.until(completed, events.ConversationItemInputAudioTranscriptionFailed)
    if isinstance(event, completed):
        check(event.usage.type if event.usage else None, "duration", "usage of whisper-1")


# --- keys and other sessions ------------------------------------------------------------------------------------------


@probe(REFERENCE)
async def keys__ephemeral(target: Any) -> None:
    """An ephemeral key is made with the settings of its session, and expires in the future."""
    key = await _ephemeral_key(target)
    check(key.session.get("instructions"), "Be kind.", "instructions")
    require(key.expires_at > time.time(), f"expires_at {key.expires_at}", "a time in the future")


@probe(REFERENCE)
async def keys__open_a_session(target: Any) -> None:
    """An ephemeral key opens a session, which has its settings."""
    key = await _ephemeral_key(target)
    async with Wire(replace(plain(target), api_key=key)) as wire:
        check(wire.session.instructions, "Be kind.", "instructions")


async def _ephemeral_key(target: Any) -> Any:
    kind = {} if target.dialect == "preview" else {"type": "realtime"}
    try:
        return await target.ephemeral_key(session={"instructions": "Be kind.", **kind})
    except ConnectError as error:
        raise Different(str(error), "an ephemeral key") from error


async def _mint_status(target: Any, body: Any) -> int:
    """Return the HTTP status of a request for an ephemeral key."""
    where = plain(target)
    facts = where.facts
    url = read_endpoint(facts.service, facts.url, dialect=facts.dialect, model=facts.model).ephemeral_keys()
    headers = await where._headers()  # those with which the target opens a session
    return (await post(where, url, headers, json=body))[0]


@probe(REFERENCE, dialects=("ga",))
async def keys__unknown_field(target: Any) -> None:
    """A request for an ephemeral key with an unknown field is refused with 400."""
    check(await _mint_status(target, {"nonsense": 1}), 400, "HTTP status")


@probe(REFERENCE, dialects=("ga",))
async def keys__too_long(target: Any) -> None:
    """An ephemeral key lives two hours at most; more is refused with 400."""
    lifetime = {"anchor": "created_at", "seconds": 7_201}
    check(await _mint_status(target, {"expires_after": lifetime, "session": {"type": "realtime"}}), 400, "HTTP status")


@probe(REFERENCE, intent="transcription")
async def transcription__session(wire: Wire) -> None:
    """A transcription-only session sends no responses."""
    check(wire.raw[0]["session"].get("object"), "realtime.transcription_session", "object")


@probe(REFERENCE, intent="transcription")
async def transcription__no_response(wire: Wire) -> None:
    """A transcription-only session refuses `response.create`."""
    await wire.send_raw({"type": "response.create"})
    await wire.refused("response.")


@probe(REFERENCE, usd=0.01)
async def events__known(wire: Wire) -> None:
    """Every event of a conversation is one of the documented ones and fits its description."""
    await wire.ask("Say yes.")
    strange = [f"{one.type}: {one.problem}" for one in wire.events if isinstance(one, UnknownEvent)]
    check(strange, [], "unknown events")


@probe(REFERENCE, usd=0.001)
async def events__ids(wire: Wire) -> None:
    """Every event has an `event_id`, and no two share one."""
    await wire.ask("Say yes.", **TEXT)
    await wire.quiet(1.0)  # `rate_limits.updated` may come last
    check([raw["type"] for raw in wire.raw if not raw.get("event_id")], [], "events without event_id")
    ids = [raw["event_id"] for raw in wire.raw]
    check(len(set(ids)), len(ids), "number of different event_id")
