// The page where a geofence is drawn: tools, radius field, cells and errors around the drawing.
import { calm } from "./dom.js";
import { Drawing } from "./drawing.js";
import { addCells, addGeofences, showCells } from "./geofence-layers.js";
import { fit, makeMap, readPlace } from "./map.js";

const options = JSON.parse(document.getElementById("editor-options").textContent);
const input = document.querySelector("input[name=place]");
const radius = document.getElementById("radius");
const radiusField = document.getElementById("radius-field");
const hint = document.getElementById("hint");
const status = document.getElementById("status");
const search = document.getElementById("search");
const buttons = new Map([...document.querySelectorAll("[data-tool], [data-act]")].map((button) => [button.dataset.tool ?? button.dataset.act, button]));

const HINTS = {
  empty: "Choose Area or Circle, then click on the map. To go somewhere, type its coordinates.",
  polygon: "Click corner after corner; click the first one again to close the area.",
  circle: "Click the middle of the circle, then where its edge is to be.",
  hole: "Click the corners of the hole, inside an area.",
  areas: "Click an area to change it: pull its corners, or a small dot between two for a new one. Right-click a corner to take it away.",
  chosen: "Pull corners and small dots; pull inside to move the whole. Right-click a corner to take it away.",
  ring: "Pull the middle to move the circle, the handle on its edge to resize it.",
  readonly: "",
};

start();

async function start() {
  const begin = options.drawn ?? options.stored;
  const { map } = await makeMap(document.getElementById("map"));
  addCells(map);
  if (options.tiles) addGeofences(map, { ...options, quiet: true, before: "cells-fill" });
  let lookedUp = null;
  let asked = 0;
  let typing = false;

  const look = calm(250, async (shape) => {
    const mine = (asked += 1);
    if (!shape) {
      tell(null);
      return;
    }
    const token = document.querySelector("input[name=csrfmiddlewaretoken]").value;
    try {
      const answer = await fetch(options.preview, {
        method: "POST", headers: { "x-csrftoken": token, "content-type": "application/json" }, body: JSON.stringify(shape),
      });
      const found = await answer.json();
      if (mine === asked) tell(found);
    } catch {
      if (mine === asked) tell(null);
    }
  });

  const drawing = new Drawing(map, {
    readonly: options.readonly,
    radius_m: () => Number(radius?.value) || 150,
    onchange: (shape, { byHand }) => changed(shape, byHand),
    onmode: (mode) => shown(mode),
  });
  drawing.load(begin, { fit: true });
  if (options.drawn && input) input.value = JSON.stringify(options.drawn);

  for (const [tool, button] of buttons) {
    if (button.dataset.tool) button.addEventListener("click", () => drawing.draw(drawing.mode === tool ? "select" : tool));
  }
  buttons.get("undo")?.addEventListener("click", () => drawing.undo());
  buttons.get("remove")?.addEventListener("click", () => drawing.remove());
  buttons.get("fit").addEventListener("click", () => show(drawing.shape, true));
  buttons.get("cells").addEventListener("click", () => {
    const on = buttons.get("cells").getAttribute("aria-pressed") !== "true";
    buttons.get("cells").setAttribute("aria-pressed", String(on));
    drawCells(lookedUp);
  });
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest("input, textarea, select") !== null;
    if (!inField && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      drawing.undo();
    }
  });
  radius?.addEventListener("input", () => {
    const metres = Number(radius.value);
    const fits = metres > 0 && metres <= 100_000;
    // Out of range, the form does not go: the old radius would be saved in silence.
    radius.setCustomValidity(fits ? "" : "A radius is 1 to 100,000 metres.");
    if (!fits) return;
    typing = true; // what is being typed stays as it is
    drawing.resize(metres);
    typing = false;
  });
  radius?.form?.addEventListener("submit", (event) => {
    if (radius.closest("[hidden]") || radius.reportValidity()) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // nothing is on its way: the button stays usable
  }, { capture: true });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    goTo();
  });
  search.addEventListener("change", goTo);

  function goTo() {
    const text = search.value.trim();
    if (!text) return;
    const place = readPlace(text);
    search.classList.toggle("gf-wrong", !place);
    search.setAttribute("aria-invalid", String(!place));
    if (!place) {
      hint.textContent = "Coordinates look like 60.1699, 24.9384: latitude first.";
      return;
    }
    map.jumpTo({ center: place, zoom: Math.max(map.getZoom(), 15) });
    drawing.point(place);
  }

  function show(shape, animate) {
    if (shape) fit(map, [{ geometry: shape.geometry, properties: { radius_m: shape.radius_m } }], { animate });
  }

  function tell(found) {
    lookedUp = found?.features ? found : null;
    drawCells(lookedUp);
    status.classList.toggle("wrong", Boolean(found?.error));
    if (found?.error) status.textContent = found.error;
    else if (!found) status.textContent = "";
    else {
      const edge = found.features.filter((cell) => cell.properties.kind === "boundary").length;
      status.textContent = `${surface(found.area_m2)} · ${found.features.length} H3 cells of resolution ${found.resolution}, ${edge} on the edge`;
    }
  }

  function drawCells(found) {
    const on = buttons.get("cells").getAttribute("aria-pressed") === "true";
    showCells(map, on ? found : null);
  }

  function changed(shape, byHand) {
    if (byHand && input) {
      input.value = shape ? JSON.stringify(shape) : "";
      input.dispatchEvent(new Event("change", { bubbles: true }));
      for (const error of document.querySelectorAll(".gf-place-error")) error.remove();
    }
    const isCircle = shape?.geometry.type === "Point";
    if (radiusField) {
      radiusField.hidden = !isCircle;
      if (isCircle && !typing) radius.value = tidy(shape.radius_m);
    }
    look(shape);
  }

  function shown(mode) {
    for (const tool of ["polygon", "circle", "hole"]) buttons.get(tool)?.setAttribute("aria-pressed", String(mode === tool));
    const { kind } = drawing;
    const idle = kind === "empty" ? "empty" : kind === "circle" ? "ring" : drawing.chosen ? "chosen" : "areas";
    hint.textContent = options.readonly ? HINTS.readonly : drawing.note || HINTS[mode === "select" ? idle : mode];
    if (options.readonly) {
      for (const group of document.querySelectorAll("[data-edit]")) group.hidden = true;
      return;
    }
    buttons.get("undo").disabled = !drawing.canUndo;
    buttons.get("remove").disabled = !drawing.canRemove;
    buttons.get("hole").disabled = kind !== "areas";
  }
}

function tidy(metres) {
  return String(metres >= 100 ? Math.round(metres) : Math.round(metres * 10) / 10);
}

function surface(m2) {
  if (m2 >= 1e6) return `${(m2 / 1e6).toLocaleString("en", { maximumSignificantDigits: 3 })} km²`;
  if (m2 >= 1e4) return `${(m2 / 1e4).toLocaleString("en", { maximumSignificantDigits: 3 })} ha`;
  return `${Math.round(m2).toLocaleString("en")} m²`;
}
