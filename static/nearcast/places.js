// Chooses geofences by search and by tag. Saves {geofences: [key], tags: [tag]}.
import { calm, h, stateOf } from "./dom.js";

const builder = JSON.parse(document.getElementById("builder-options").textContent);
const known = new Map(builder.named.map((one) => [one.key, one]));

export function mount(element) {
  const { value, save } = stateOf(element);
  const chosen = { geofences: value?.geofences ?? [], tags: value?.tags ?? [] };
  const map = document.getElementById("builder-map");
  picker(element, chosen, () => { save(chosen); drawPlaces(map, [chosen]); });
  drawPlaces(map, [chosen]);
}

/** What a place is called, by what a campaign calls it. */
export const nameOf = (key) => known.get(key)?.name ?? String(key);

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
      ...chosen.geofences.map((key) => chip("location_on", nameOf(key), () => {
        chosen.geofences = chosen.geofences.filter((one) => one !== key);
        changed();
      })),
    );
  }

  draw();
}

const drawings = new Map(); // by box: a calm way to draw, and the map's own once it is there

/**
 * Shows chosen places on the map in a box: groups of {geofences, tags, mark}, a mark {text, colour}
 * or none. Without any place the box is hidden.
 */
export function drawPlaces(box, groups) {
  if (!drawings.has(box)) drawings.set(box, { later: calm(150, draw), asked: 0, map: null });
  drawings.get(box).later(box, groups);
}

async function draw(box, groups) {
  const drawing = drawings.get(box);
  const mine = (drawing.asked += 1);
  const queries = groups.map(queryOf);
  box.hidden = queries.every((query) => !query);
  if (box.hidden) return;
  const found = await Promise.all(queries.map(shapes));
  const show = await mapOf(box);
  if (mine === drawing.asked) show?.(merged(groups, found));
}

/** The names and tags of a group, as the server is asked for them. */
function queryOf(group) {
  const query = new URLSearchParams();
  for (const key of group.geofences) if (known.get(key)?.id) query.append("id", known.get(key).id);
  for (const tag of group.tags) query.append("tag", tag);
  return String(query);
}

async function shapes(query) {
  if (!query) return [];
  const answer = await fetch(`${builder.shapes}&${query}`);
  return answer.ok ? (await answer.json()).features : [];
}

/** Each place once, with the marks of all groups that have it. */
function merged(groups, found) {
  const places = new Map();
  groups.forEach(({ mark }, at) => {
    for (const feature of found[at]) {
      const place = places.get(feature.id) ?? { ...feature, properties: { ...feature.properties, marks: [] } };
      if (mark) place.properties.marks.push(mark);
      places.set(feature.id, place);
    }
  });
  return [...places.values()];
}

/** The map, made when first needed: a function that shows features; null where none can be drawn. */
function mapOf(box) {
  const drawing = drawings.get(box);
  drawing.map ??= import("./places-map.js").then((module) => module.make(box)).catch((error) => {
    console.warn("no map", error);
    box.remove();
    return null;
  });
  return drawing.map;
}
