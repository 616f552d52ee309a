/** The WebSocket to the background loop: see _socket.py. Stands before _line.js, in one module with it. */

/** Where to try, the best first. A page from elsewhere has no business on this machine's loopback. */
export function ways({ port, direct }, { location, document }) {
  const found = [];
  const here = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
  if (direct && here) found.push(["direct", `ws://127.0.0.1:${port}/`]);
  const config = document.getElementById("jupyter-config-data")?.textContent;
  if (config) {
    const url = new URL(`${JSON.parse(config).baseUrl}proxy/${port}/`, location.href);
    found.push(["proxy", url.href.replace(/^http/, "ws")]);
  }
  return found;
}

/**
 * Try one way and show the token; what the kernel then says first is its consent.
 * @returns {Promise<boolean>} whether it is open; then every frame goes to `receive`, and its end to `lost(ws, lived_ms)`
 */
export function openSocket(url, first, { env, opened, receive, lost }) {
  const ws = new env.WebSocket(url);
  ws.binaryType = "arraybuffer";
  let since = 0;
  return new Promise((resolve) => {
    const limit = setTimeout(() => ws.close(), 10000); // widget messages do until then
    ws.onopen = () => ws.send(JSON.stringify(first));
    ws.onmessage = ({ data }) => {
      if (!since) {
        clearTimeout(limit);
        since = performance.now();
        opened(ws);
        resolve(true);
      }
      receive(data);
    };
    ws.onclose = () => {
      clearTimeout(limit);
      resolve(since > 0);
      lost(ws, performance.now() - since);
    };
  });
}
