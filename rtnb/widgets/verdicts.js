/**
 * Requested versus effective, field by field. Texts may come from a service: they are only ever `textContent`.
 *
 * @typedef {object} State
 * @property {string[]} heads names of the columns
 * @property {string[][]} rows one [field, requested, effective, verdict, reason] per wish
 */

/** A table row's cells: words, and a mark that needs no colour to be understood. */
export function cells([field, requested, effective, verdict, reason]) {
  return [field, requested, verdict === "sending" || verdict === "waiting" ? "…" : effective, reason ? `${verdict}: ${reason}` : verdict];
}

function fill(body, rows) {
  body.replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      line.dataset.verdict = row[3];
      line.append(
        ...cells(row).map((text, index) => {
          const cell = document.createElement(index ? "td" : "th");
          cell.textContent = index ? text : text.split(".").at(-1);
          cell.dir = "auto";
          cell.title = text;
          return cell;
        }),
      );
      return line;
    }),
  );
}

function render({ model, el, signal }) {
  el.classList.add("rtnb", "rtnb-verdicts");
  const table = document.createElement("table");
  table.setAttribute("aria-label", "Requested and effective settings");
  const head = table.createTHead().insertRow();
  for (const text of model.get("heads")) {
    const cell = document.createElement("th");
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  body.setAttribute("aria-live", "polite");
  const show = () => {
    const rows = model.get("rows");
    el.hidden = rows.length === 0;
    fill(body, rows);
  };
  model.on("change:rows", show);
  show();
  el.append(table);
  return () => model.off("change:rows", show);
}

export default { render };
