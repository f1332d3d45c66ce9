// Languages by their names, and those that are offered to choose from.
import { h } from "./dom.js";

const COMMON = ["en", "fr", "de", "es", "it", "nl", "pt", "pl", "sv", "fi", "da", "nb", "cs", "el", "ru", "uk", "tr", "ar", "he", "hi", "ja", "ko", "zh"];
const names = new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" });

export function nameOf(tag) {
  try {
    return names.of(tag) ?? tag;
  } catch {
    return tag;
  }
}

// A list to add a language from; `taken` are tags that are there already.
export function adder(taken, add, label = "Add a language") {
  return h("select", { class: "nc-input nc-tab-add", "aria-label": label, onchange: (event) => {
    const chosen = event.target.value;
    const tag = (chosen === "other" ? prompt("Language tag, for example fr-CA") ?? "" : chosen).trim();
    event.target.value = "";
    if (tag) add(tag);
  } },
    h("option", { value: "" }, "+ Language"),
    COMMON.filter((tag) => !taken.includes(tag)).map((tag) => h("option", { value: tag }, nameOf(tag))),
    h("option", { value: "other" }, "Other…"));
}
