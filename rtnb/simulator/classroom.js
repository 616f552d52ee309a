/**
 * The teacher's page: asks for the counts once a second and shows them, as text only.
 *
 * @typedef {{name: string, open: number, sessions: number, minutes: number, answers: number, errors: number,
 *   last_error: string, refused: number, audio_s: number, events: number}} Student
 *   `audio_s` and `events` count all of the open sessions
 * @typedef {{students: Student[], sessions_each: number, sessions_total: number, wrong_keys: number, minutes: number}}
 *   State
 */

const EVERY_MS = 1000;

/** @param {string} name @param {unknown} text @param {string} [kind] */
function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = String(text);
  made.className = kind;
  return made;
}

/** @type {Map<string, {row: HTMLTableRowElement, cells: HTMLElement[], end: HTMLButtonElement}>} */
const lines = new Map();

/** Counts at the answer before, and its time. @type {Map<string, {atMs: number, audio: number, events: number}>} */
const before = new Map();

/** Load since the answer before; a session that ended takes its counts away. @param {Student} student */
function load(student) {
  const now = { atMs: performance.now(), audio: student.audio_s, events: student.events };
  const last = before.get(student.name) ?? now;
  before.set(student.name, now);
  const seconds = Math.max((now.atMs - last.atMs) / 1000, 0.1);
  return [now.audio - last.audio, now.events - last.events].map((count) => Math.max(0, count) / seconds);
}

/** Ask the simulator to end the sessions of a student. @param {string} name */
async function end(name) {
  if (!confirm(`End all sessions of ${name}?`)) return;
  const answer = await fetch("end", { method: "POST", body: name });
  if (!answer.ok) stand(`Cannot end the sessions of ${name} (HTTP ${answer.status}).`, true);
}

/** Make the line of a student once: a button keeps its focus while the numbers change. @param {string} name */
function makeLine(name) {
  const row = document.createElement("tr");
  const title = /** @type {HTMLTableCellElement} */ (element("th", name));
  title.scope = "row";
  const kinds = ["state", "number", "number", "number", "number", "number", "number", "fault"];
  const cells = kinds.map((kind) => element("td", "", kind));
  const button = /** @type {HTMLButtonElement} */ (element("button", "End sessions"));
  button.type = "button";
  button.setAttribute("aria-label", `End the sessions of ${name}`);
  button.addEventListener("click", () => end(name));
  const action = document.createElement("td");
  action.append(button);
  row.append(title, ...cells, action);
  const line = { row, cells, end: button };
  lines.set(name, line);
  return line;
}

/** The line of one student. @param {Student} student */
function showLine(student) {
  const line = lines.get(student.name) ?? makeLine(student.name);
  line.row.dataset.here = String(student.open > 0);
  line.end.hidden = !student.open;
  const [audio, events] = load(student);
  const sessions = student.open > 1 ? ` (${student.open} sessions)` : "";
  const texts = [
    student.open ? `connected${sessions}` : student.sessions ? "left" : "not yet",
    student.sessions ? student.minutes.toFixed(1) : "",
    student.answers || "",
    student.errors || "",
    student.refused || "",
    student.open ? audio.toFixed(2) : "",
    student.open ? events.toFixed(1) : "",
    student.last_error,
  ];
  texts.forEach((text, place) => (line.cells[place].textContent = String(text)));
  line.cells[3].classList.toggle("fault", student.errors > 0);
  line.cells[4].classList.toggle("fault", student.refused > 0);
  return line.row;
}

/** Show all. @param {State} state */
function show(state) {
  const total = (/** @type {(one: Student) => number} */ of) => state.students.reduce((sum, one) => sum + of(one), 0);
  const figures = {
    connected: `${total((one) => Number(one.open > 0))} of ${state.students.length}`,
    "sessions open": `${total((one) => one.open)} of ${state.sessions_total}`,
    answers: total((one) => one.answers),
    errors: total((one) => one.errors),
    "wrong keys": state.wrong_keys,
    "minutes up": state.minutes.toFixed(0),
  };
  document.querySelector("#figures")?.replaceChildren(
    ...Object.entries(figures).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }),
  );
  const table = document.querySelector("#students");
  for (const line of state.students.map(showLine)) if (!line.isConnected) table?.append(line);
}

/** @param {string} text @param {boolean} lost */
function stand(text, lost) {
  const line = /** @type {HTMLElement} */ (document.querySelector("#standing"));
  if (line.textContent === text) return; // a screen reader hears changes, not seconds
  line.textContent = text;
  line.dataset.lost = String(lost);
}

async function ask() {
  try {
    const answer = await fetch("state", { cache: "no-store" });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
    stand("live, every second", false);
  } catch (error) {
    stand(`The simulator does not answer (${error instanceof Error ? error.message : error}): what you see is old.`, true);
  }
  setTimeout(ask, EVERY_MS);
}

ask();
