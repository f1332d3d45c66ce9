// What a language says otherwise: tabs beside the default. Saves {tag: {title, body, …}}.
import { h, stateOf } from "./dom.js";

const FIELDS = [["title", "Title", 1], ["body", "Text", 3], ["deep_link", "Opens", 1], ["image_url", "Image", 1]];
const COMMON = ["en", "fr", "de", "es", "it", "nl", "pt", "pl", "sv", "fi", "da", "nb", "cs", "el", "tr", "ar", "ja", "zh"];

export function mount(element) {
  const { value, save } = stateOf(element);
  const locales = value ?? {};
  const tabs = document.getElementById("languages");
  const standard = document.getElementById("language-default");
  const preview = document.getElementById("preview-locale");
  const names = new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" });
  const panel = h("div", {});
  element.append(panel);
  let open = "";

  function nameOf(tag) {
    try {
      return names.of(tag) ?? tag;
    } catch {
      return tag;
    }
  }

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
    const clean = tag.trim();
    if (!clean) return;
    locales[clean] ??= {};
    save(locales);
    fillPreview();
    show(clean);
  }

  function drawTabs() {
    const tab = (tag, label) =>
      h("button", {
        type: "button", role: "tab", class: `nc-tab${open === tag ? " on" : ""}`,
        "aria-selected": String(open === tag), onclick: () => show(tag),
      }, label);
    const more = h("select", { class: "nc-input nc-tab-add", "aria-label": "Add a language", onchange: (event) => {
      const chosen = event.target.value;
      add(chosen === "other" ? prompt("Language tag, for example fr-CA") ?? "" : chosen);
    } },
      h("option", { value: "" }, "+ Language"),
      COMMON.filter((tag) => !(tag in locales)).map((tag) => h("option", { value: tag }, nameOf(tag))),
      h("option", { value: "other" }, "Other…"));
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
          placeholder: fallback ? `as everybody: ${fallback}` : "", "data-takes": "variables",
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
