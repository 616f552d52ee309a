"""The page's part of a call on a bare page: its messages to the kernel, its texts and states, and its end."""

from typing import Any

import pytest

from rtnb.widgets._base import styles
from tests.widgets.bare_page import shown

TRAITS = {"state": "idle", "message": "", "notices": [], "label": "x", "microphone": False}
TRAITS |= {"muted": False}
KEY = "ek_" + "0123456789abcdef0123456789abcdef"  # in two, so that no scanner takes it for a key
OFFER = "v=0\r\na=candidate:1 1 udp 2 5d3a-1.local 5 typ host\r\na=candidate:2 1 udp 2 10.0.0.1 5 typ host\r\n"


@pytest.fixture
async def page(browser: Any) -> Any:
    return await shown(browser, "webrtc", TRAITS)


async def test_a_page_without_access_hands_the_offer_to_the_kernel_and_closes_everything(page: Any) -> None:
    await page.get_by_role("button", name="Start call").click()
    assert await page.evaluate("sent") == [["start", {"page": "p"}]]
    await page.evaluate(
        """key => {
            answers.key = { key, url: "http://localhost:9/calls" };
            answers.offer = { failed: true };
            const Peer = RTCPeerConnection;
            window.RTCPeerConnection = class extends Peer { constructor() { super(); window.peer = this; } };
            say("call", { call: 7, page: "elsewhere" });
            say("call", { call: 7, page: "p" });
        }""",
        KEY,
    )
    await page.wait_for_function("sent.some(([kind]) => kind === 'released')")
    sent = await page.evaluate("sent")
    assert [kind for kind, _ in sent] == ["start", "step", "key", "offer", "ended", "released"]
    offer = dict(sent)["offer"]
    assert offer["call"] == 7
    assert offer["sdp"].startswith("v=0")
    assert "opus" in offer["sdp"]
    assert KEY not in str(sent) + await page.content()
    assert await page.evaluate("peer.connectionState === 'closed' && peer.getSenders()[0].track.readyState") == "ended"
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert page.failures == []


@pytest.mark.parametrize(
    "no_microphone, problem",
    [
        (
            "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })",
            "only on https and localhost pages.",
        ),
        (
            "MediaDevices.prototype.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') }",
            "The browser does not allow the microphone.",
        ),
    ],
    ids=["an insecure page", "a refusal"],
)
async def test_a_page_without_a_microphone_shows_the_reason(browser: Any, no_microphone: str, problem: str) -> None:
    page = await shown(browser, "webrtc", {**TRAITS, "microphone": True, "muted": True})
    await page.evaluate(f"() => {{ {no_microphone}; }}")
    await page.evaluate("say('call', { call: 1, page: 'p' })")
    await page.wait_for_function("sent.some(([kind]) => kind === 'released')")
    assert problem in dict(await page.evaluate("sent"))["ended"]["problem"]


async def test_texts_of_the_kernel_stay_text(browser: Any) -> None:
    page = await shown(browser, "webrtc", {**TRAITS, "microphone": True, "muted": True})
    hostile = "<img src=x onerror='window.hacked=1'>"
    await page.evaluate(
        "text => (model.set('notices', [text]), model.set('message', text), model.set('state', 'failed'))", hostile
    )
    assert await page.get_by_role("status").text_content() == hostile
    assert await page.locator("details div").text_content() == f"{hostile}\n{hostile}"
    assert await page.evaluate("window.hacked") is None
    assert await page.get_by_role("button", name="Mute").get_attribute("aria-pressed") == "true"


async def test_status_and_figures(page: Any) -> None:
    assert await page.evaluate("sdp => module.withoutLocalNames(sdp)", OFFER) == OFFER.replace(
        OFFER.split("\r\n")[1] + "\r\n", ""
    )
    here = {"step": "an answer"}
    for traits, call, text in (
        ({"state": "idle"}, None, "Not connected"),
        ({"state": "starting"}, None, "Starting…"),
        ({"state": "starting"}, here, "Waiting for an answer…"),
        ({"state": "open"}, None, "The call is on another page"),
        ({"state": "open"}, here, "Connected; audio comes from say()"),
        ({"state": "open", "microphone": True}, here, "Connected: speak"),
        ({"state": "open", "microphone": True, "muted": True}, here, "Connected, muted"),
        ({"state": "closed"}, None, "Call ended"),
        ({"state": "failed", "message": "No microphone\nNext: …"}, None, "No microphone Next: …"),
    ):
        assert await page.evaluate("([t, c]) => module.describe(t, c)", [TRAITS | traits, call]) == text
    empty = await page.evaluate("module.figures(new Map())")
    assert (empty["received"], empty["round_trip_ms"], empty["path"]) == (0, None, "")


CALL = """async ({ traits }) => {
    for (const [name, value] of Object.entries(traits)) model.set(name, value);
    window.other = new RTCPeerConnection(); // the service
    answers.key = { key: "k", url: "http://localhost:9/calls" };
    window.fetch = async (url, { body }) => {
        await other.setRemoteDescription({ type: "offer", sdp: body });
        await other.setLocalDescription(await other.createAnswer());
        while (other.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 10));
        return new Response("");
    };
    Object.defineProperty(answers, "answered", { get: () => ({ sdp: other.localDescription.sdp }) });
    other.ondatachannel = ({ channel }) => (window.far = channel);
    say("call", { call: 1, page: "p" });
}"""
"""A call between two connections of one page."""


async def connected(browser: Any, traits: dict[str, Any]) -> Any:
    page = await shown(browser, "webrtc", TRAITS)
    await page.evaluate(CALL, {"traits": traits})
    await page.wait_for_function("sent.some(([kind]) => kind === 'figures')")
    await page.evaluate("model.set('state', 'open')")
    return page


async def test_controls_have_states_and_the_keyboard_reaches_them(browser: Any) -> None:
    page = await connected(browser, {"microphone": False})
    toggle = page.get_by_role("button", name="End call")
    for name in ("You", "Model"):
        meter = page.get_by_role("meter", name=name)
        assert await meter.evaluate("node => [node.min, node.max, node.value]") == [-60, 0, -60]
    details = page.locator("details")
    await details.locator("summary").click()
    assert " · round_trip_ms " in await details.inner_text()
    await toggle.focus()
    await page.evaluate("model.set('microphone', true)")
    mute = page.get_by_role("button", name="Mute")
    assert await mute.get_attribute("aria-pressed") == "false"
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    assert await mute.get_attribute("aria-pressed") == "true"
    assert await page.get_by_role("status").text_content() == "Connected, muted"
    assert await page.evaluate("other.getReceivers()[0].track.muted") is False
    await toggle.focus()
    await page.keyboard.press("Enter")
    assert [kind for kind, _ in await page.evaluate("sent")][-2:] == ["released", "stop"]
    assert page.failures == []


async def test_the_start_button_says_that_the_microphone_opens(browser: Any) -> None:
    page = await shown(browser, "webrtc", TRAITS | {"microphone": True})
    title = "document.querySelector('.rtnb-start').title"
    assert await page.evaluate(title) == "Opens the microphone: the browser asks for permission"
    await page.evaluate("model.set('state', 'open')")
    assert await page.evaluate(title) == ""
    await page.evaluate("model.set('microphone', false); model.set('state', 'closed')")
    assert await page.evaluate(title) == ""


async def test_in_a_playground_it_is_one_row_whose_details_cover_nothing_below(browser: Any) -> None:
    page = await shown(browser, "webrtc", TRAITS | {"notices": ["A notice"]})
    await page.add_style_tag(content=styles("webrtc.css"))
    await page.evaluate("document.body.className = 'rtnb-frame'")
    await page.evaluate("document.querySelector('.rtnb-webrtc').style.margin = '300px 0 0'")
    root, details = page.locator(".rtnb-webrtc"), page.locator("details")
    assert not await details.evaluate("node => node.open")
    before = await root.bounding_box()
    assert before["height"] <= 30
    await details.locator("summary").click()
    assert await root.bounding_box() == before
    panel = await page.locator(".rtnb-webrtc-panel").bounding_box()
    assert panel["y"] + panel["height"] <= before["y"]
    assert await page.locator(".rtnb-webrtc-panel").inner_text() == "A notice"


async def test_events_that_the_kernel_cannot_take_end_the_call(browser: Any) -> None:
    page = await connected(browser, {})
    await page.evaluate("refuse = true; far.send('{}')")
    await page.wait_for_function("sent.some(([kind]) => kind === 'ended')")
    assert ["ended", {"call": 1, "why": "backlog"}] in await page.evaluate("sent")


async def test_events_beyond_the_buffer_of_the_data_channel_end_the_call(browser: Any) -> None:
    page = await connected(browser, {})
    await page.evaluate("for (let i = 0; i < 60; i++) say('event', { call: 1 }, [new ArrayBuffer(200_000)])")
    assert ["ended", {"call": 1, "why": "backlog"}] in await page.evaluate("sent")
    assert page.failures == []


async def test_audio_of_the_kernel_takes_the_place_of_the_track_and_is_reported(browser: Any) -> None:
    page = await connected(browser, {"microphone": False})
    await page.mouse.click(5, 5)  # else the browser holds sound back
    await page.evaluate("say('play', { call: 1, id: 7 }, [new ArrayBuffer(2400)])")
    await page.wait_for_function("sent.some(([kind]) => kind === 'played')")
    assert ["played", {"call": 1, "id": 7}] in await page.evaluate("sent")
