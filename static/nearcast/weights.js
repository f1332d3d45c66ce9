// What a score grows with, as rows: so much for each second, metre or unit of what is known of the
// person. Saves {name: weight} as campaigns.scores has it.
import { h, select, stateOf } from "./dom.js";

const ATTRIBUTE = "attribute.";
const KINDS = [
  ["dwell_s", "second they have stayed so far"], ["distance_m", "metre to the middle of the place"], [ATTRIBUTE, "unit of what is known:"],
];

const kindOf = (name) => (name.startsWith(ATTRIBUTE) ? ATTRIBUTE : name);

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const rows = Object.entries(value ?? {});
  const names = "weight-names";
  const list = h("div", { class: "nc-rows" });
  const more = h("button", { type: "button", class: "nc-add", onclick: () => { rows.push([free(), 1]); changed(); draw(); } }, "+ Add to the score");
  element.append(h("datalist", { id: names }, (options.attributes ?? []).map((name) => h("option", { value: name }))), list, more);

  /** What nothing has been said of yet. */
  function free() {
    return ["dwell_s", "distance_m"].find((name) => !rows.some(([used]) => used === name)) ?? ATTRIBUTE;
  }

  function changed() {
    save(Object.fromEntries(rows.filter(([name]) => name !== ATTRIBUTE)));
  }

  function draw() {
    list.replaceChildren(...rows.map(drawRow));
  }

  function drawRow(row, at) {
    const kind = kindOf(row[0]);
    const kinds = KINDS.some(([known]) => known === kind) ? KINDS : [...KINDS, [kind, kind]];
    return h("div", { class: "nc-row", role: "group", "aria-label": `Part ${at + 1} of the score` },
      h("input", {
        type: "number", step: "any", class: "nc-input nc-number", value: row[1], "aria-label": "how much",
        onchange: (event) => { row[1] = Number(event.target.value) || 0; changed(); },
      }),
      "for each",
      select(kinds, kind, (next) => { row[0] = next; changed(); draw(); }, { "aria-label": "for each what" }),
      kind === ATTRIBUTE
        ? h("input", {
            class: "nc-input", size: 16, maxLength: 64, list: names, value: row[0].slice(ATTRIBUTE.length), placeholder: "e.g. affinity",
            "aria-label": "attribute", onchange: (event) => { row[0] = ATTRIBUTE + event.target.value.trim(); changed(); },
          })
        : null,
      h("button", {
        type: "button", class: "nc-remove", title: "Remove this", "aria-label": `Remove part ${at + 1} of the score`,
        onclick: () => { rows.splice(at, 1); changed(); draw(); },
      }, "×"));
  }

  draw();
}
