// Limits as rows: "at most 3 in 1 day for a phone". Saves [{limit, window_s | per, scope, tag?, channel?}].
import { h, select, stateOf } from "./dom.js";

const SIZES = { 60: "minutes", 3600: "hours", 86400: "days", 604800: "weeks" };
const UNITS = [
  ...Object.entries(SIZES),
  ["hour", "hour of the clock"], ["day", "calendar day"], ["week", "calendar week"], ["month", "calendar month"],
];

/** The unit a row is shown in: the largest that divides its window; none where it is for ever. */
function unitOf(row) {
  if (row.per) return row.per;
  if (!row.window_s) return "ever";
  return Object.keys(SIZES).map(Number).reverse().find((size) => row.window_s % size === 0) ?? 60;
}

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const rows = Array.isArray(value) ? value : [];
  const scopes = Object.entries(options.scopes);
  const units = options.ever ? [...UNITS, ["ever", "all time"]] : UNITS;
  const list = h("div", { class: "nc-rows" });
  element.append(list, h("button", { type: "button", class: "nc-add", onclick: add }, "+ Add a limit"));

  function add() {
    rows.push({ limit: 1, window_s: 86400, scope: scopes[0][0] });
    changed();
  }

  function changed() {
    save(rows);
    list.replaceChildren(...rows.map(draw));
  }

  function whole(shown, label, set) {
    return h("input", {
      type: "number", min: 1, value: shown, class: "nc-input nc-number", "aria-label": label,
      onchange: (event) => { set(Math.max(1, Math.round(Number(event.target.value) || 1))); changed(); },
    });
  }

  function setUnit(row, unit) {
    const count = row.window_s ? Math.max(1, Math.round(row.window_s / unitOf(row))) : 1;
    delete row.per;
    delete row.window_s;
    if (unit in SIZES) row.window_s = count * Number(unit);
    else if (unit !== "ever") row.per = unit;
    changed();
  }

  function setScope(row, scope) {
    row.scope = scope;
    if (scope === "tag") row.tag ??= "";
    else delete row.tag;
    if (scope === "channel") row.channel ??= "push";
    else delete row.channel;
    changed();
  }

  function draw(row, at) {
    const unit = unitOf(row);
    return h("div", { class: "nc-row" },
      "at most", whole(row.limit, "offers", (n) => { row.limit = n; }),
      row.per ? "in a" : "in",
      row.per || !row.window_s ? null : whole(row.window_s / unit, "how many", (n) => { row.window_s = n * unit; }),
      select(units, unit, (next) => setUnit(row, next), { "aria-label": "unit" }),
      "for",
      select(scopes, row.scope, (next) => setScope(row, next), { "aria-label": "for whom" }),
      row.scope === "tag"
        ? h("input", {
            class: "nc-input", value: row.tag ?? "", placeholder: "tag", "aria-label": "tag", size: 12,
            onchange: (event) => { row.tag = event.target.value.trim(); changed(); },
          })
        : null,
      row.scope === "channel"
        ? select([["push", "push"], ["inbox", "the inbox alone"]], row.channel, (next) => { row.channel = next; changed(); }, { "aria-label": "channel" })
        : null,
      h("button", {
        type: "button", class: "nc-remove", title: "Remove this limit", "aria-label": "Remove this limit",
        onclick: () => { rows.splice(at, 1); changed(); },
      }, "×"),
    );
  }

  list.replaceChildren(...rows.map(draw));
}
