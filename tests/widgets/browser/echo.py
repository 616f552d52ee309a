"""A widget that echoes over the line, for the tests in real JupyterLab: written into a notebook's first cell."""

from __future__ import annotations

ECHO = r'''
import time
from rtnb.widgets.channel import StreamWidget, shared_channel

class Echo(StreamWidget):
    _esm = """
    export default {
      async render({ model, el, host }) {
        const { exports: channel, render } = await host.getWidget(model.get("channel"));
        const badge = document.createElement("div");
        await render({ el: badge });
        const state = document.createElement("output");
        state.className = "echo-state";
        el.append(badge, state);
        const ch = channel.openStream(model.get("stream_name"), (kind, header, buffers) => {
          if (kind === "state") state.textContent = header.text;
          if (kind === "numbers") for (let i = 0; i < header.n; i++) window.echo.numbers.push(header.first + i);
        });
        window.echo = { channel, ch, numbers: [], async trips(n) {
          const ms = [];
          for (let i = 0; i < n; i++) {
            const start = performance.now();
            await ch.request("echo", { i }, { timeout_ms: 20000 });
            ms.push(performance.now() - start);
          }
          return ms;
        } };
        return () => ch.close();
      },
    };
    """

    def __init__(self):
        super().__init__()
        self.heard, self.came, self.last = [], [], None
        self.open_stream(self.answer).on_page(self.page)

    def page(self, page_id, what):
        if (page_id, what) != self.last:  # where the welcome is slow, a page says hello and joins again
            self.came.append(what)
            self.last = (page_id, what)
        self._stream.publish("state", {"text": f"state {len(self.came)}"})

    def answer(self, kind, header, buffers):
        self.heard.append((kind, header, [len(b) for b in buffers]))
        return {"i": header.get("i")}

echo = Echo()
echo
'''
