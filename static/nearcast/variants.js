// Variants as rows: a name, a share, and what it says otherwise, in each language if it likes.
// Saves [{name, weight, content: {title, …, locales: {fr: {title, …}}}}].
import { h, stateOf } from "./dom.js";
import { adder, nameOf } from "./languages.js";

const FIELDS = [["title", "Title", 1], ["body", "Text", 2], ["deep_link", "Opens", 1], ["image_url", "Image", 1]];

export function mount(element) {
  const { value, save } = stateOf(element);
  const rows = Array.isArray(value) ? value : [];
  const list = h("div", { class: "nc-rows" });
  element.append(list, h("button", { type: "button", class: "nc-add", onclick: add }, "+ Add a variant"));

  function add() {
    const free = "ABCDEFGHIJ".split("").find((name) => !rows.some((row) => row.name === name)) ?? "";
    rows.push({ name: free, weight: 1, content: {} });
    changed();
  }

  function changed() {
    save(rows);
    draw();
  }

  function share(row) {
    const all = rows.reduce((sum, one) => sum + (one.weight ?? 1), 0);
    return all ? `${Math.round((100 * (row.weight ?? 1)) / all)} %` : "–";
  }

  // `said` is what the variant says, to everybody or in one language (`tag`).
  function text(row, said, [name, label, lines], tag = "") {
    const standard = document.querySelector(`[name=${name}]`)?.value ?? "";
    const properties = {
      class: "nc-input nc-wide", value: said[name] ?? "",
      "aria-label": `${label} of ${row.name}${tag ? `, ${nameOf(tag)}` : ""}`,
      placeholder: standard && !tag ? `${label}, as everybody: ${standard}` : label, "data-takes": "variables",
      oninput: (event) => {
        if (event.target.value) said[name] = event.target.value;
        else delete said[name];
        save(rows);
      },
    };
    return lines > 1 ? h("textarea", { ...properties, rows: lines }) : h("input", properties);
  }

  function drawLanguage(row, tag, said) {
    return h("fieldset", { class: "nc-variant-language", lang: tag },
      h("legend", {}, nameOf(tag), h("button", {
        type: "button", class: "nc-remove", title: `Remove ${nameOf(tag)}`,
        "aria-label": `Remove ${nameOf(tag)} of ${row.name}`,
        onclick: () => {
          delete row.content.locales[tag];
          if (!Object.keys(row.content.locales).length) delete row.content.locales;
          changed();
        },
      }, "×")),
      FIELDS.map((field) => text(row, said, field, tag)));
  }

  function drawRow(row, at) {
    row.content ??= {};
    const locales = row.content.locales ?? {};
    return h("div", { class: "nc-variant" },
      h("div", { class: "nc-row" },
        h("input", {
          class: "nc-input", value: row.name, size: 12, maxLength: 40, "aria-label": "Name of the variant",
          onchange: (event) => { row.name = event.target.value.trim(); changed(); },
        }),
        "gets",
        h("input", {
          type: "number", min: 0, step: "any", class: "nc-input nc-number", value: row.weight ?? 1, "aria-label": "Weight",
          onchange: (event) => { row.weight = Math.max(0, Number(event.target.value) || 0); changed(); },
        }),
        h("span", { class: "nc-faint" }, `of all parts: ${share(row)}`),
        h("button", {
          type: "button", class: "nc-remove", title: "Remove this variant", "aria-label": "Remove this variant",
          onclick: () => { rows.splice(at, 1); changed(); },
        }, "×")),
      FIELDS.map((field) => text(row, row.content, field)),
      Object.entries(locales).map(([tag, said]) => drawLanguage(row, tag, said)),
      adder(Object.keys(locales), (tag) => {
        row.content.locales = { ...locales, [tag]: {} };
        changed();
      }, `Add a language to ${row.name}`));
  }

  function draw() {
    list.replaceChildren(...rows.map(drawRow));
  }

  draw();
}
