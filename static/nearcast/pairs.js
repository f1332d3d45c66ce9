// Names and values as rows. Saves {name: value}; values stay texts unless they are numbers before.
import { h, stateOf } from "./dom.js";

export function mount(element) {
  const { value, save } = stateOf(element);
  pairs(element, value, save);
}

/** The rows in any element; `save` gets the object after each change. */
export function pairs(element, value, save) {
  const rows = Object.entries(value ?? {});
  const list = h("div", { class: "nc-rows" });
  element.append(
    list,
    h("button", { type: "button", class: "nc-add", onclick: () => { rows.push(["", ""]); draw(); } }, "+ Add a value"),
  );

  function changed() {
    save(Object.fromEntries(rows.filter(([name]) => name)));
  }

  function field(row, place, label) {
    return h("input", {
      class: "nc-input", value: String(row[place]), placeholder: label, "aria-label": label,
      onchange: (event) => { row[place] = event.target.value.trim(); changed(); },
    });
  }

  function draw() {
    list.replaceChildren(...rows.map((row, at) =>
      h("div", { class: "nc-row" },
        field(row, 0, "name"), "=", field(row, 1, "value"),
        h("button", {
          type: "button", class: "nc-remove", "aria-label": "Remove this value",
          onclick: () => { rows.splice(at, 1); changed(); draw(); },
        }, "×"),
      )));
  }

  draw();
}
