// Small helpers for the admin's components: elements, inputs with JSON, a pause before acting.

/** Makes an element: h("button", { class: "x", onclick: f }, "text", child). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  if (properties.class) element.className = properties.class;
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A <select> of [value, label] pairs. */
export function select(pairs, chosen, onchange, properties = {}) {
  return h(
    "select",
    { class: "nc-input", ...properties, onchange: (event) => onchange(event.target.value) },
    pairs.map(([value, label]) => h("option", { value, selected: String(value) === String(chosen) }, label)),
  );
}

/** The JSON state of a component: its hidden input and the options beside it. */
export function stateOf(element) {
  const input = element.querySelector("input[type=hidden]");
  const options = element.querySelector('script[type="application/json"]');
  let value = null;
  try {
    value = JSON.parse(input.value || "null");
  } catch {
    value = null;
  }
  return {
    value,
    options: options ? JSON.parse(options.textContent) : {},
    save(next) {
      input.value = JSON.stringify(next);
      input.dispatchEvent(new Event("input", { bubbles: true }));
    },
  };
}

/** Calls `act` once nothing has asked for it for `ms`. */
export function calm(ms, act) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
}

/** Sets what was said of a row; an empty value is left out, as if it had never been said. */
export function say(row, name, said) {
  const isEmpty = said === "" || said === undefined || (typeof said === "object" && !Object.keys(said).length);
  if (isEmpty) delete row[name];
  else row[name] = said;
}

/** How many times, `most` at the most; once need not be said and is undefined. */
export function times(shown, most, unit, onchange) {
  return h("label", { class: "nc-times" },
    h("input", {
      type: "number", min: 1, max: most, value: shown ?? 1, class: "nc-input nc-number", "aria-label": "how many times",
      onchange: (event) => {
        const count = Math.min(most, Math.max(1, Math.round(Number(event.target.value) || 1)));
        event.target.value = count;
        onchange(count > 1 ? count : undefined);
      },
    }), unit);
}
