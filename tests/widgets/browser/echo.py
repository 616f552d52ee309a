"""A widget that echoes over the channel, for tests in real JupyterLab: the source of a notebook's first cell."""

ECHO = r'''
import hashlib, time
from rtnb.widgets._base import bundle
from rtnb.widgets._upload import Upload
from rtnb.widgets.channel import StreamWidget, shared_channel

class Echo(StreamWidget):
    _esm = bundle("shared.js") + """
    export default {
      async render({ model, el, host, signal }) {
        const { exports: channel, render } = await host.getWidget(model.get("channel"));
        const badge = document.createElement("div");
        await render({ el: badge, signal });
        const state = document.createElement("output");
        state.className = "echo-state";
        el.append(badge, state);
        const stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => {
          if (kind === "state") state.textContent = header.text;
          if (kind === "numbers") for (let i = 0; i < header.n; i++) window.echo.numbers.push(header.first + i);
        }, signal);
        window.echo = { channel, stream, numbers: [], sent: 0, async trips(n) {
          const ms = [];
          for (let i = 0; i < n; i++) {
            const start = performance.now();
            await stream.request("echo", { i }, { timeout_ms: 20000 });
            ms.push(performance.now() - start);
          }
          return ms;
        }, async upload(size) {
          const data = new Uint8Array(size);
          for (let at = 0; at < size; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
          const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
          const onProgress = (sent) => (window.echo.sent = sent);
          const reply = await upload(stream, "file", data.buffer, {}, { onProgress });
          return [[...digest].map((b) => b.toString(16).padStart(2, "0")).join(""), reply];
        } };
      },
    };
    """

    def __init__(self):
        super().__init__()
        self.received, self.changes = [], []
        self.upload = Upload()
        self.open_stream(self.answer).on_page = self.page

    def page(self, page_id, change):
        self.changes.append(change)
        self._stream.publish("state", {"text": f"state {len(self.changes)}"})

    def answer(self, kind, header, buffers):
        if kind == "file":
            data = self.upload.receive(header, buffers)
            return {} if data is None else {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.received.append((kind, header, [len(b) for b in buffers]))
        return {"i": header.get("i")}

echo = Echo()
echo
'''
