/**
 * The teacher's page: asks for the counts once a second and shows them, as text only.
 *
 * @typedef {{name: string, open: number, sessions: number, minutes: number, answers: number, errors: number,
 *   last_error: string, refused: number}} Student
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

/** The line of one student. @param {Student} student */
function row(student) {
  const made = document.createElement("tr");
  made.dataset.here = String(student.open > 0);
  const name = /** @type {HTMLTableCellElement} */ (element("th", student.name));
  name.scope = "row";
  const sessions = student.open > 1 ? ` (${student.open} sessions)` : "";
  const now = student.open ? `connected${sessions}` : student.sessions ? "left" : "not yet";
  made.append(
    name,
    element("td", now, "state"),
    element("td", student.sessions ? student.minutes.toFixed(1) : "", "number"),
    element("td", student.answers || "", "number"),
    element("td", student.errors || "", student.errors ? "number fault" : "number"),
    element("td", student.refused || "", student.refused ? "number fault" : "number"),
    element("td", student.last_error, "fault"),
  );
  return made;
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
  document.querySelector("#students")?.replaceChildren(...state.students.map(row));
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
