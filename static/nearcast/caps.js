// Caps as rows: "3 offers in 1 day for a phone". Saves [{limit, window_s, scope}].
import { h, select, stateOf } from "./dom.js";

const UNITS = [[3600, "hours"], [86400, "days"], [604800, "weeks"]];

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const rows = Array.isArray(value) ? value : [];
  const scopes = Object.entries(options.scopes);
  const list = h("div", { class: "nc-rows" });
  element.append(
    list,
    h("button", { type: "button", class: "nc-add", onclick: add }, "+ Add a limit"),
  );

  function add() {
    rows.push({ limit: 1, window_s: 86400, scope: scopes[0][0] });
    changed();
  }

  function changed() {
    save(rows);
    draw();
  }

  function draw() {
    list.replaceChildren(...rows.map((row, at) => drawRow(row, at)));
  }

  function drawRow(row, at) {
    const unit = [...UNITS].reverse().find(([seconds]) => row.window_s % seconds === 0)?.[0] ?? 3600;
    const number = (n, label, set) =>
      h("input", {
        type: "number", min: 1, value: n, class: "nc-input nc-number", "aria-label": label,
        onchange: (event) => { set(Math.max(1, Math.round(Number(event.target.value) || 1))); changed(); },
      });
    return h("div", { class: "nc-row" },
      "at most",
      number(row.limit, "offers", (n) => { row.limit = n; }),
      "in",
      number(Math.round(row.window_s / unit), "how many", (n) => { row.window_s = n * unit; }),
      select(UNITS, unit, (next) => {
        row.window_s = Math.round(row.window_s / unit) * Number(next);
        changed();
      }, { "aria-label": "unit" }),
      "for",
      select(scopes, row.scope, (next) => { row.scope = next; changed(); }, { "aria-label": "for whom" }),
      h("button", {
        type: "button", class: "nc-remove", title: "Remove this limit", "aria-label": "Remove this limit",
        onclick: () => { rows.splice(at, 1); changed(); },
      }, "×"),
    );
  }

  draw();
}
