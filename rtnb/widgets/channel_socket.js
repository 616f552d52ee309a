/** WebSocket of the channel between page and kernel; channel.py describes who gets in. */

const ATTEMPT_MS = 5000;

/**
 * Return the ways to try, the best first. A page of another machine cannot reach this machine's loopback.
 * @param {{ port?: number, direct?: boolean }} offer
 * @param {{ location: Location | URL, document: Pick<Document, "getElementById"> }} env
 * @returns {["direct" | "proxy", string][]}
 */
export function ways({ port, direct }, { location, document: page }) {
  /** @type {["direct" | "proxy", string][]} */
  const found = [];
  if (!port) return found;
  const isLoopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
  if (direct && isLoopback) found.push(["direct", `ws://127.0.0.1:${port}/`]);
  const config = page.getElementById("jupyter-config-data")?.textContent;
  if (config) {
    const url = new URL(`${JSON.parse(config).baseUrl}proxy/${port}/`, location.href);
    found.push(["proxy", url.href.replace(/^http/, "ws")]);
  }
  return found;
}

/**
 * Open a socket; the kernel's first message says that it is accepted.
 * @param {string} url with the page's token
 * @param {{ onData: (data: ArrayBuffer) => void, onClose: (socket: WebSocket) => void }} handlers
 * @returns {Promise<?WebSocket>} null where this way does not work
 */
export function openSocket(url, { onData, onClose }) {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  return new Promise((resolve) => {
    const timer = setTimeout(() => socket.close(), ATTEMPT_MS);
    socket.onmessage = ({ data }) => {
      clearTimeout(timer);
      resolve(socket);
      onData(data);
    };
    socket.onclose = () => {
      clearTimeout(timer);
      resolve(null);
      onClose(socket);
    };
  });
}
