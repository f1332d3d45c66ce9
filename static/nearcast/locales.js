// What a language says otherwise: tabs beside the default. Saves {tag: {title, body, …}}.
import { h, stateOf } from "./dom.js";
import { adder, nameOf } from "./languages.js";

const FIELDS = [["title", "Title", 1], ["body", "Text", 3], ["deep_link", "Opens", 1], ["image_url", "Image", 1]];

export function mount(element) {
  const { value, save } = stateOf(element);
  const locales = value ?? {};
  const tabs = document.getElementById("languages");
  const standard = document.getElementById("language-default");
  const preview = document.getElementById("preview-locale");
  const panel = h("div", {});
  element.append(panel);
  let open = "";

  function show(tag) {
    open = tag;
    standard.hidden = tag !== "";
    drawTabs();
    drawPanel();
    if (preview && preview.value !== tag) {
      preview.value = tag;
      preview.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }

  function add(tag) {
    locales[tag] ??= {};
    save(locales);
    fillPreview();
    show(tag);
  }

  function drawTabs() {
    const tab = (tag, label) =>
      h("button", {
        type: "button", role: "tab", class: `nc-tab${open === tag ? " on" : ""}`,
        "aria-selected": String(open === tag), onclick: () => show(tag),
      }, label);
    const more = adder(Object.keys(locales), add);
    tabs.replaceChildren(tab("", "Everybody else"), ...Object.keys(locales).map((tag) => tab(tag, nameOf(tag))), more);
  }

  function drawPanel() {
    if (open === "") return panel.replaceChildren();
    const local = locales[open];
    return panel.replaceChildren(
      ...FIELDS.map(([name, label, rows]) => {
        const fallback = document.querySelector(`[name=${name}]`)?.value ?? "";
        const set = (event) => {
          if (event.target.value) local[name] = event.target.value;
          else delete local[name];
          save(locales);
        };
        const properties = {
          class: "nc-input nc-wide", value: local[name] ?? "", oninput: set, id: `locale-${name}`,
          placeholder: fallback ? `as everybody: ${fallback}` : "", "data-takes": "variables", dir: "auto",
        };
        return h("div", { class: "nc-field" },
          h("label", { for: `locale-${name}` }, label),
          rows > 1 ? h("textarea", { ...properties, rows }) : h("input", properties));
      }),
      h("button", {
        type: "button", class: "nc-add", onclick: () => { delete locales[open]; save(locales); fillPreview(); show(""); },
      }, `Remove ${nameOf(open)}`),
    );
  }

  function fillPreview() {
    preview?.replaceChildren(
      h("option", { value: "" }, "default"),
      ...Object.keys(locales).map((tag) => h("option", { value: tag }, nameOf(tag))));
  }

  fillPreview();
  drawTabs();
}
