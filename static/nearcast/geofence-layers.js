// How geofences look on a map: all of a brand from vector tiles, the cells of one.
import { isDark } from "./map.js";

export const INK = { armed: "#0d9488", idle: "#64748b", edge: "#d97706", inside: "#0d9488" };

const armed = ["case", ["get", "armed"], INK.armed, INK.idle];

/** All geofences of the brand out of vector tiles; `quiet` draws them as surroundings. */
export function addGeofences(map, { tiles, maxzoom, quiet = false, before }) {
  map.addSource("geofences", { type: "vector", maxzoom, tiles: [location.origin + tiles] });
  const layer = (id, more) => map.addLayer({ id, source: "geofences", ...more }, before);
  const faint = quiet ? 0.45 : 1;
  layer("geofences-fill", {
    type: "fill", "source-layer": "shapes",
    paint: { "fill-color": armed, "fill-opacity": quiet ? 0.05 : ["case", ["boolean", ["feature-state", "near"], false], 0.4, 0.18] },
  });
  layer("geofences-line", {
    type: "line", "source-layer": "shapes",
    paint: { "line-color": armed, "line-opacity": 0.9 * faint, "line-width": ["interpolate", ["linear"], ["zoom"], 10, 1, 16, 2], ...(quiet ? { "line-dasharray": [2, 2] } : {}) },
  });
  if (quiet) return;
  const many = [">", ["get", "count"], 1];
  layer("geofences-dot", {
    type: "circle", "source-layer": "dots",
    paint: {
      "circle-color": armed, "circle-opacity": 0.85,
      "circle-stroke-color": isDark() ? "#0b1416" : "#ffffff", "circle-stroke-width": ["case", many, 2, 1.2],
      "circle-radius": ["case", many, ["interpolate", ["linear"], ["log10", ["get", "count"]], 0, 9, 2, 14, 4, 22, 5, 26], 4.5],
    },
  });
  layer("geofences-count", {
    type: "symbol", "source-layer": "dots", filter: many,
    layout: {
      "text-field": ["case", ["<", ["get", "count"], 1000], ["to-string", ["get", "count"]], ["concat", ["to-string", ["round", ["/", ["get", "count"], 1000]]], "k"]],
      "text-font": ["Inter", "system-ui", "sans-serif"], "text-size": 11.5, "text-allow-overlap": true,
    },
    paint: { "text-color": "#ffffff" },
  });
  layer("geofences-name", {
    type: "symbol", "source-layer": "shapes", minzoom: 13,
    layout: { "text-field": ["get", "name"], "text-font": ["Inter", "system-ui", "sans-serif"], "text-size": 12, "text-max-width": 9 },
    paint: { "text-color": isDark() ? "#d7e3e1" : "#123f3b", "text-halo-color": isDark() ? "#0b1416" : "#ffffff", "text-halo-width": 1.4 },
  });
}

/** Layers for the H3 cells of one geofence; fill them with `showCells`. */
export function addCells(map, before) {
  map.addSource("cells", { type: "geojson", data: nothing() });
  const ink = ["match", ["get", "kind"], "interior", INK.inside, INK.edge];
  map.addLayer({ id: "cells-fill", type: "fill", source: "cells", paint: { "fill-color": ink, "fill-opacity": 0.16 } }, before);
  map.addLayer({ id: "cells-line", type: "line", source: "cells", paint: { "line-color": ink, "line-width": 1, "line-opacity": 0.75 } }, before);
}

export function showCells(map, collection) {
  map.getSource("cells").setData(collection ?? nothing());
}

export const nothing = () => ({ type: "FeatureCollection", features: [] });
