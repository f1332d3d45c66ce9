// The map that every page uses: makes it, puts a background under it that is never blank, fits it.
// It knows nothing of geofences, devices or drawing.
import * as maplibregl from "../build/maplibre-gl/maplibre-gl.mjs";
import { backdrop, drawGraticule, drawSea } from "./backdrop.js";

export { maplibregl };

const ABOUT = "/admin/geofences/geofence/map.json";
const LOST_TILES = 4; // so many failures in a row and not one success: the tiles cannot be reached

const calmly = matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Whether the page is dark; the admin's switch, not the system's. */
export const isDark = () => document.documentElement.classList.contains("dark");

/**
 * Makes a map in an element and answers once it can be drawn on: {map, popup, about}.
 *
 * options: bounds [west, south, east, north] to begin with (else all geofences of the brand),
 * center and zoom, interactive (default true), controls (default true).
 */
export async function makeMap(element, options = {}) {
  const about = { ...(await aboutMap()), ...options.about };
  const bounds = options.bounds ?? about.bounds;
  let map;
  try {
    map = new maplibregl.Map({
      container: element,
      style: backdrop({ cityUrl: about.city, tiles: about.tiles, attribution: about.attribution, dark: isDark() }),
      center: options.center ?? [10, 25],
      zoom: options.zoom ?? 1.4,
      ...(!options.center && bounds ? { bounds: asBox(bounds), fitBoundsOptions: { padding: 48, maxZoom: 16 } } : {}),
      attributionControl: { compact: true },
      interactive: options.interactive ?? true,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxPitch: 0,
      fadeDuration: calmly ? 0 : 150,
      locale: { "AttributionControl.ToggleAttribution": "Where the map comes from" },
    });
  } catch (error) {
    element.replaceChildren(noMap());
    throw error;
  }
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  if ((options.interactive ?? true) && (options.controls ?? true)) {
    map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "bottom-right");
    map.addControl(new maplibregl.ScaleControl({ maxWidth: 110 }), "bottom-left");
  }
  giveUpLostTiles(map);
  const graticule = () => drawGraticule(map);
  map.on("moveend", graticule);
  map.on("resize", graticule);
  await new Promise((resolve) => map.once("style.load", resolve));
  graticule();
  if (about.city) drawSea(map).catch((error) => console.warn("no demo city", error));
  const popup = new maplibregl.Popup({ maxWidth: "280px", closeButton: true });
  return { map, popup, about };
}

async function aboutMap() {
  try {
    const answer = await fetch(ABOUT, { headers: { accept: "application/json" } });
    if (answer.ok && !answer.redirected) return await answer.json();
  } catch {
    // The map still works, without tiles and with the world in view.
  }
  return { tiles: "", attribution: "", city: "", bounds: null };
}

/** Removes the tiles where none can be had, and with them the credit for them. */
function giveUpLostTiles(map) {
  let lost = 0;
  const onError = (event) => {
    if (event.sourceId !== "tiles") {
      console.warn(event.error);
      return;
    }
    lost += 1;
    if (lost === LOST_TILES && map.getSource("tiles")) {
      map.removeLayer("tiles");
      map.removeSource("tiles");
    }
  };
  map.on("error", onError);
  map.on("data", (event) => {
    if (event.sourceId === "tiles" && event.tile?.state === "loaded") lost = -Infinity;
  });
}

function noMap() {
  const note = document.createElement("p");
  note.className = "nc-map-note";
  note.textContent = "This browser cannot draw the map: WebGL is switched off or missing.";
  return note;
}

/** [west, south, east, north] as MapLibre has it; a box across the antimeridian goes on past 180. */
export function asBox([west, south, east, north]) {
  const clamp = (lat) => Math.max(-85, Math.min(85, lat));
  return [[west, clamp(south)], [east < west ? east + 360 : east, clamp(north)]];
}

/** Every position of GeoJSON coordinates, however deep. */
export function* positions(coordinates) {
  if (typeof coordinates[0] === "number") yield coordinates;
  else for (const part of coordinates) yield* positions(part);
}

/** The box around features (circles with their radius), or null where there is nothing. */
export function boundsOf(features) {
  let box = null;
  const take = (lng, lat) => {
    box = box
      ? [Math.min(box[0], lng), Math.min(box[1], lat), Math.max(box[2], lng), Math.max(box[3], lat)]
      : [lng, lat, lng, lat];
  };
  for (const { geometry, properties } of features) {
    if (!geometry) continue;
    const shown = properties?.radius_m && geometry.type === "Point" ? circle(geometry.coordinates, properties.radius_m) : geometry;
    for (const [lng, lat] of positions(shown.coordinates)) take(lng, lat);
  }
  return box;
}

export function fit(map, features, { maxZoom = 17, padding = 56, animate = false } = {}) {
  const box = boundsOf(features);
  if (box) map.fitBounds(asBox(box), { padding, maxZoom, animate: animate && !calmly });
}

const EARTH_RADIUS_M = 6371008.8; // as geofences.geometry has it

/** A circle on the sphere as a polygon of `corners` corners. */
export function circle([lng, lat], radius_m, corners = 72) {
  const angle = radius_m / EARTH_RADIUS_M;
  const phi = (lat * Math.PI) / 180;
  const ring = [];
  for (let at = 0; at <= corners; at += 1) {
    const bearing = (at / corners) * 2 * Math.PI;
    const sin = Math.sin(phi) * Math.cos(angle) + Math.cos(phi) * Math.sin(angle) * Math.cos(bearing);
    const east = Math.atan2(Math.sin(bearing) * Math.sin(angle) * Math.cos(phi), Math.cos(angle) - Math.sin(phi) * sin);
    ring.push([lng + (east * 180) / Math.PI, (Math.asin(Math.max(-1, Math.min(1, sin))) * 180) / Math.PI]);
  }
  return { type: "Polygon", coordinates: [ring] };
}

/** Great-circle distance in metres. */
export function distance_m([lng, lat], [toLng, toLat]) {
  const rad = Math.PI / 180;
  const h = Math.sin(((toLat - lat) * rad) / 2) ** 2
    + Math.cos(lat * rad) * Math.cos(toLat * rad) * Math.sin(((toLng - lng) * rad) / 2) ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.sqrt(Math.min(1, h)));
}

/** "60.17, 24.94", "60.17 N 24.94 E", 60°10'12"N 24°56'24"E or a map's address → [lng, lat] or null. */
export function readPlace(text) {
  const address = /@(-?\d+\.\d+),(-?\d+\.\d+)/.exec(text) ?? /[?&/#](?:q=|map=[\d.]+\/)?(-?\d+\.\d+)[,/](-?\d+\.\d+)/.exec(text);
  if (address) return onEarth(Number(address[2]), Number(address[1]));
  const parts = [...text.matchAll(/(-?\d+(?:\.\d+)?)\s*°?\s*(?:(\d+(?:\.\d+)?)\s*['′]\s*)?(?:(\d+(?:\.\d+)?)\s*["″]\s*)?([NSEWO])?/gi)];
  if (parts.length !== 2) return null;
  const [first, second] = parts.map(([, degrees, minutes = "0", seconds = "0", side = ""]) => {
    const size = Math.abs(Number(degrees)) + Number(minutes) / 60 + Number(seconds) / 3600;
    return { value: degrees.startsWith("-") || /[SWO]/i.test(side) ? -size : size, side: side.toUpperCase() };
  });
  return /[EWO]/.test(first.side) ? onEarth(first.value, second.value) : onEarth(second.value, first.value);
}

function onEarth(lng, lat) {
  return Math.abs(lat) <= 90 && Math.abs(lng) <= 180 ? [lng, lat] : null;
}
