/**
 * A line to type in, recordings to say, interrupt, the figures of the last turn, and what was heard.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {[string, string, string][]} status name, value and explanation of each figure
 * @property {string} problem what went wrong last
 * @property {string} busy what is going on
 */

const RATE_HZ = 24000;
const PIECE_BYTES = 1 << 20;
const LARGEST_BYTES = 64 << 20;

/** Samples −1 … 1 of any number of channels, as 16-bit mono. */
export function toPcm16(channels) {
  const pcm = new Int16Array(channels[0].length);
  for (let i = 0; i < pcm.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    pcm[i] = Math.max(-1, Math.min(1, sum / channels.length)) * 32767;
  }
  return pcm;
}

/** The bytes to send and their rate: WAV files go as they are (the kernel knows more kinds than browsers do). */
export async function readSound(bytes) {
  if (bytes.byteLength > LARGEST_BYTES) throw new RangeError(`the file has ${bytes.byteLength >> 20} MB; at most ${LARGEST_BYTES >> 20} can be said`);
  if (String.fromCharCode(...new Uint8Array(bytes, 0, Math.min(4, bytes.byteLength))) === "RIFF") return { data: bytes, rate_hz: null };
  const decoded = await new OfflineAudioContext(1, 1, RATE_HZ).decodeAudioData(bytes); // resamples to the context's rate
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  return { data: toPcm16(channels).buffer, rate_hz: RATE_HZ };
}

/** Cut bytes into pieces that fit a frame. */
export function pieces(data, size = PIECE_BYTES) {
  const count = Math.max(1, Math.ceil(data.byteLength / size));
  return Array.from({ length: count }, (_, i) => data.slice(i * size, (i + 1) * size));
}

function make(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function showFigures(list, figures) {
  list.replaceChildren(
    ...figures.map(([name, value, meaning]) => {
      const item = make("div", "rtnb-figure");
      item.title = meaning;
      item.append(make("dt", "", name), make("dd", "", value));
      return item;
    }),
  );
  if (!figures.length) list.append(make("div", "rtnb-faint", "Latency, tokens and cost of the last turn will stand here."));
}

const COLUMNS = ["item", "generated", "received", "played", "heard", ""];

/** The cells of a row of what was heard: milliseconds, or – where nobody knows. */
export function heardCells([item, , generated, received, played, heard, cut]) {
  const ms = (value) => (value === null ? "–" : `${Math.round(value)}`);
  return [item, ms(generated), ms(received), ms(played), ms(heard), cut ? "cut" : ""];
}

function heardTable(el) {
  const fold = make("details", "rtnb-heard-items");
  const summary = make("summary", "", "What was heard");
  const table = make("table", "");
  const row = (tag, cells) => {
    const line = make("tr", "");
    line.append(...cells.map((text) => make(tag, "", text)));
    line.firstChild.title = cells[0];
    return line;
  };
  const [head, body] = [make("thead", ""), make("tbody", "")];
  table.title = "Milliseconds of each answer: what the service sent, what came here, what left the loudspeaker, what counts as heard";
  head.append(row("th", COLUMNS));
  table.append(head, body);
  fold.append(summary, table);
  el.append(fold);
  return (items) => {
    fold.hidden = !items.length;
    summary.textContent = items.length ? `What was heard: ${Math.round(items.at(-1)[5])} ms of the last answer` : "";
    body.replaceChildren(...items.map((item) => row("td", heardCells(item))));
  };
}

async function render({ model, el, host }) {
  const { exports: channel } = await host.getWidget(model.get("channel"));
  const stream = channel.openStream(model.get("stream_name"), (kind, { items }) => kind === "heard" && showHeard(items));
  el.classList.add("rtnb", "rtnb-talk");

  const form = make("form", "rtnb-talk-line");
  const text = make("textarea", "");
  Object.assign(text, { rows: 1, placeholder: "Say it in writing (Enter sends)", dir: "auto" });
  text.setAttribute("aria-label", "What you say in writing");
  const send = make("button", "rtnb-primary", "Send");
  send.type = "submit";
  const choose = make("button", "", "Say a recording…");
  const stop = make("button", "", "Interrupt");
  choose.type = stop.type = "button";
  const file = make("input", "");
  Object.assign(file, { type: "file", accept: "audio/*,.wav", hidden: true });
  file.setAttribute("aria-label", "Recording to say");
  form.append(text, send, choose, stop, file);
  const busy = make("span", "rtnb-busy rtnb-faint");
  busy.setAttribute("role", "status");
  const problem = make("div", "rtnb-error rtnb-message");
  problem.setAttribute("role", "alert");
  const figures = make("dl", "rtnb-figures");
  el.append(form, busy, problem, figures);
  const showHeard = heardTable(el);
  showHeard([]);

  const tell = (words) => {
    problem.textContent = words;
    problem.hidden = !words;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!text.value.trim()) return text.focus();
    stream.send("ask", { text: text.value });
    text.value = "";
  });
  text.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); // what is typed here is no shortcut of JupyterLab's
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  stop.addEventListener("click", () => stream.send("interrupt", {}));
  choose.addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    try {
      tell("");
      const { data, rate_hz } = await readSound(await chosen.arrayBuffer());
      const parts = pieces(data);
      parts.forEach((part, i) => stream.send("sound", { first: i === 0, more: i < parts.length - 1, rate_hz }, [part]));
    } catch (error) {
      tell(`${chosen.name} cannot be said: ${error.message}`);
    }
    file.value = "";
  });

  const show = () => {
    busy.textContent = { asking: "Waiting for the answer…", saying: "Saying the recording…" }[model.get("busy")] ?? "";
    tell(model.get("problem"));
    showFigures(figures, model.get("status"));
  };
  const traits = ["status", "problem", "busy"];
  for (const trait of traits) model.on(`change:${trait}`, show);
  show();
  return () => {
    stream.close();
    for (const trait of traits) model.off(`change:${trait}`, show);
  };
}

export default { render };
