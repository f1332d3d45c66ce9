// Names and values as rows. Saves {name: value}; what is typed becomes a text, or what `typed` makes of it.
import { h, stateOf } from "./dom.js";

export function mount(element) {
  const { value, save } = stateOf(element);
  pairs(element, value, save);
}

/** The rows in any element; `save` gets the object after each change. `options` may name the parts. */
export function pairs(element, value, save, { add = "+ Add a value", between = "=", name = "name", said = "value", list: known, typed = (text) => text } = {}) {
  const rows = Object.entries(value ?? {});
  const list = h("div", { class: "nc-rows" });
  element.append(
    list,
    h("button", { type: "button", class: "nc-add", onclick: () => { rows.push(["", ""]); draw(); } }, add),
  );

  function changed() {
    save(Object.fromEntries(rows.filter(([key]) => key)));
  }

  function field(row, place, label) {
    return h("input", {
      class: "nc-input", value: String(row[place]), placeholder: label, "aria-label": label, list: place ? known : null,
      onchange: (event) => {
        const text = event.target.value.trim();
        row[place] = place ? typed(text) : text;
        changed();
      },
    });
  }

  function draw() {
    list.replaceChildren(...rows.map((row, at) =>
      h("div", { class: "nc-row" },
        field(row, 0, name), between, field(row, 1, said),
        h("button", {
          type: "button", class: "nc-remove", "aria-label": "Remove this value",
          onclick: () => { rows.splice(at, 1); changed(); draw(); },
        }, "×"),
      )));
  }

  draw();
}
