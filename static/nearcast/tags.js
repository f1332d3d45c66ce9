// Tags as chips, with those the brand already uses to choose from. Saves a list of texts.
import { h, stateOf } from "./dom.js";

const OFFERED = 8;

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const tags = [...(value ?? [])];
  const chips = h("span", { class: "gf-tags-chosen" });
  const input = h("input", {
    class: "gf-tags-input", "aria-label": "Add a tag", placeholder: "add a tag…", maxLength: 64, autocomplete: "off",
    onkeydown: keys, oninput: draw, onblur: () => add(input.value),
  });
  const offered = h("div", { class: "gf-tags-offered" });
  element.append(h("div", { class: "gf-tags nc-input", onclick: () => input.focus() }, chips, input), offered);

  function keys(event) {
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      add(input.value);
    } else if (event.key === "Backspace" && !input.value && tags.length) {
      tags.pop();
      changed();
    }
  }

  function add(text) {
    for (const part of text.split(",")) {
      const tag = part.trim().replace(/\s+/g, " ");
      if (tag && !tags.includes(tag)) tags.push(tag);
    }
    input.value = "";
    changed();
  }

  function changed() {
    save(tags);
    draw();
  }

  function draw() {
    chips.replaceChildren(...tags.map((tag) => h("span", { class: "nc-chip" }, tag,
      h("button", { type: "button", "aria-label": `Remove ${tag}`, onclick: () => { tags.splice(tags.indexOf(tag), 1); changed(); } }, "×"))));
    const typed = input.value.trim().toLowerCase();
    const free = (options.known ?? []).filter((tag) => !tags.includes(tag) && tag.toLowerCase().includes(typed));
    offered.replaceChildren(...free.slice(0, OFFERED).map((tag) =>
      // pointerdown comes before the input's blur, which would take half a word for a tag.
      h("button", { type: "button", onpointerdown: (event) => { event.preventDefault(); input.value = ""; add(tag); } }, `+ ${tag}`)));
  }

  draw();
}
