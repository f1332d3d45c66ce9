// Chooses geofences by search and by tag. Saves {geofences: [key], tags: [tag]}.
import { calm, h, stateOf } from "./dom.js";

const builder = JSON.parse(document.getElementById("builder-options").textContent);
const known = new Map(builder.named.map((one) => [one.key, one]));

export function mount(element) {
  const { value, save } = stateOf(element);
  const chosen = { geofences: value?.geofences ?? [], tags: value?.tags ?? [] };
  picker(element, chosen, () => { save(chosen); drawMap(chosen); });
  drawMap(chosen);
}

/** Search and chips in any element; keeps `chosen` and tells of each change. */
export function picker(element, chosen, tell) {
  const chips = h("div", { class: "nc-chips" });
  const results = h("div", { class: "nc-results", hidden: true });
  const input = h("input", {
    class: "nc-input nc-wide", type: "search", placeholder: "Search a place or a tag…", "aria-label": "Search a place or a tag",
    autocomplete: "off", onfocus: () => look(), oninput: calm(200, look), onkeydown: keys,
  });
  if (!builder.readonly) element.append(input, results);
  element.append(chips);
  let asked = 0;

  document.addEventListener("click", outside);

  function outside(event) {
    if (!element.isConnected) document.removeEventListener("click", outside);
    else if (!element.contains(event.target)) results.hidden = true;
  }

  function keys(event) {
    if (event.key === "Escape") results.hidden = true;
    if (event.key === "Enter") {
      event.preventDefault();
      results.querySelector("button")?.click();
    }
  }

  async function look() {
    const mine = (asked += 1);
    const answer = await fetch(`${builder.places}&q=${encodeURIComponent(input.value.trim())}`);
    if (!answer.ok || mine !== asked) return;
    const found = await answer.json();
    const tags = found.tags.filter((tag) => !chosen.tags.includes(tag));
    const places = found.places.filter((place) => !isChosen(place));
    results.replaceChildren(
      ...tags.map((tag) => row("sell", `every place tagged “${tag}”`, "", () => { chosen.tags.push(tag); changed(); })),
      ...places.map((place) => row("location_on", place.name, place.tags.join(", "), () => {
        known.set(place.key, place);
        chosen.geofences.push(place.key);
        changed();
      })),
    );
    if (!tags.length && !places.length) {
      results.append(h("p", { class: "nc-faint" }, input.value ? "Nothing is called that." : "There is no other place. Draw one under Geofences."));
    }
    results.hidden = false;
  }

  function isChosen(place) {
    return chosen.geofences.some((key) => key === place.key || known.get(key)?.id === place.id);
  }

  function row(icon, title, note, choose) {
    return h("button", { type: "button", class: "nc-result", onclick: choose },
      h("span", { class: "material-symbols-outlined" }, icon), h("span", {}, title), h("small", {}, note));
  }

  function changed() {
    tell();
    input.value = "";
    results.hidden = true;
    draw();
  }

  function chip(icon, text, drop) {
    return h("span", { class: "nc-chip" },
      h("span", { class: "material-symbols-outlined" }, icon), text,
      builder.readonly ? null : h("button", { type: "button", "aria-label": `Remove ${text}`, onclick: drop }, "×"));
  }

  function draw() {
    chips.replaceChildren(
      ...chosen.tags.map((tag) => chip("sell", `tagged ${tag}`, () => { chosen.tags = chosen.tags.filter((one) => one !== tag); changed(); })),
      ...chosen.geofences.map((key) => chip("location_on", known.get(key)?.name ?? String(key), () => {
        chosen.geofences = chosen.geofences.filter((one) => one !== key);
        changed();
      })),
    );
  }

  draw();
}

const drawMap = calm(150, async (chosen) => {
  const box = document.getElementById("builder-map");
  const query = new URLSearchParams();
  for (const key of chosen.geofences) if (known.get(key)?.id) query.append("id", known.get(key).id);
  for (const tag of chosen.tags) query.append("tag", tag);
  box.hidden = ![...query].length;
  if (box.hidden) return;
  const answer = await fetch(`${builder.shapes}&${query}`);
  if (answer.ok) (await placesMap(box))?.(await answer.json());
});

let drawing;

/** The map, made when first needed: a function that shows a FeatureCollection. */
function placesMap(box) {
  drawing ??= import("./places-map.js").then((module) => module.make(box)).catch((error) => {
    console.warn("no map", error);
    box.remove();
    return null;
  });
  return drawing;
}
