// What lies under everything else on a map: coarse land, the demo city, a graticule with its
// degrees, and on top of those the tiles, which hide them where they can be had.

const PALETTES = {
  light: {
    far: "#cfe0e6", near: "#edf1f0", sea: "#d5e4e9", land: "#f4f2ec", shore: "#c3d3d6", line: "#9fb6bb", ink: "#3d5056", halo: "#ffffff",
    city: "#f5f3ee", water: "#c3dce5", sand: "#f2e6c4", park: "#d3e6cb", pier: "#e6e2d8", block: "#ece8df",
    building: "#dfd9cd", street: "#ffffff", casing: "#d9d3c6", main: "#fbe7b2", tram: "#a78f86",
  },
  dark: {
    far: "#0d1b20", near: "#131d20", sea: "#10212a", land: "#1b282b", shore: "#24363a", line: "#33484e", ink: "#b8c7ca", halo: "#0b1416",
    city: "#1b2629", water: "#10303a", sand: "#33301f", park: "#1d3325", pier: "#252f31", block: "#202b2e",
    building: "#2a3639", street: "#37464a", casing: "#151f21", main: "#544a2b", tram: "#7d6a62",
  },
};

const NOTHING = { type: "FeatureCollection", features: [] };
const FONT = ["Inter", "system-ui", "sans-serif"];

/** A MapLibre style; `cityUrl` and `tiles` may be empty. */
export function backdrop({ cityUrl, tiles, attribution, dark }) {
  const ink = PALETTES[dark ? "dark" : "light"];
  const byZoom = (from, to) => ["interpolate", ["linear"], ["zoom"], ...from, ...to];
  const kind = (...kinds) => ["match", ["get", "kind"], kinds, true, false];
  const road = (name) => ["all", kind("street"), ["==", ["get", "road"], name]];
  const fill = (id, filter, color, more = {}) => ({ id, type: "fill", source: "city", filter, paint: { "fill-color": color, ...more } });
  const line = (id, filter, color, width, more = {}) => ({
    id, type: "line", source: "city", filter,
    layout: { "line-cap": "round", "line-join": "round" },
    paint: { "line-color": color, "line-width": width, ...more },
  });
  const width = (at12, at18) => ["interpolate", ["exponential", 1.6], ["zoom"], 11, at12 / 2, 18, at18];
  return {
    version: 8,
    sources: {
      land: { type: "geojson", data: landOfTheWorld() },
      city: { type: "geojson", data: cityUrl || NOTHING },
      sea: { type: "geojson", data: NOTHING },
      graticule: { type: "geojson", data: NOTHING },
      ...(tiles ? { tiles: { type: "raster", tiles: [tiles], tileSize: 256, maxzoom: 19, attribution: link(attribution) } } : {}),
    },
    layers: [
      { id: "far", type: "background", paint: { "background-color": byZoom([4, ink.far], [8, ink.near]) } },
      // Coarse outlines are a picture of the world, not of a coast: they fade before they could lie.
      { id: "land", type: "fill", source: "land", maxzoom: 8, paint: { "fill-color": ink.land, "fill-opacity": byZoom([4, 1], [7, 0]), "fill-outline-color": ink.shore } },
      { id: "sea", type: "fill", source: "sea", minzoom: 7, paint: { "fill-color": ink.sea, "fill-opacity": byZoom([7, 0], [9, 1]) } },
      { id: "graticule", type: "line", source: "graticule", filter: ["==", ["geometry-type"], "LineString"], paint: { "line-color": ink.line, "line-width": 0.6, "line-opacity": 0.55 } },
      fill("city-land", kind("land"), ink.city),
      fill("city-sand", kind("sand"), ink.sand),
      fill("city-water", kind("water"), ink.water),
      fill("city-park", kind("park"), ink.park),
      fill("city-pier", kind("pier"), ink.pier),
      fill("city-block", kind("block"), ink.block),
      line("city-casing", kind("street"), ink.casing, width(1.6, 17), { "line-opacity": byZoom([12, 0], [14, 1]) }),
      line("city-lane", road("lane"), ink.street, width(0.8, 10)),
      line("city-street", road("street"), ink.street, width(1.6, 13)),
      line("city-main", road("main"), ink.main, width(2.4, 16)),
      line("city-tram", kind("tram"), ink.tram, width(1, 2.5), { "line-dasharray": [3, 2] }),
      fill("city-building", kind("building"), ink.building, { "fill-opacity": byZoom([13, 0], [15, 1]) }),
      {
        id: "degrees", type: "symbol", source: "graticule", filter: ["==", ["geometry-type"], "Point"],
        layout: { "text-field": ["get", "text"], "text-font": FONT, "text-size": 10.5, "text-anchor": ["get", "anchor"], "text-offset": [0.4, 0.2], "text-allow-overlap": true, "text-optional": true },
        paint: { "text-color": ink.ink, "text-opacity": 0.6, "text-halo-color": ink.near, "text-halo-width": 1 },
      },
      {
        id: "city-label", type: "symbol", source: "city", filter: kind("label"), minzoom: 10,
        layout: {
          "text-field": ["get", "name"], "text-font": FONT,
          "text-size": ["match", ["get", "rank"], 1, 17, 2, 14, 12],
          "symbol-sort-key": ["get", "rank"], "text-letter-spacing": 0.02, "text-max-width": 8,
        },
        paint: { "text-color": ink.ink, "text-halo-color": ink.halo, "text-halo-width": 1.4 },
      },
      ...(tiles ? [{ id: "tiles", type: "raster", source: "tiles", paint: { "raster-saturation": -0.35, "raster-brightness-max": dark ? 0.6 : 1 } }] : []),
    ],
  };
}

/** Puts the demo city into the sea it was drawn in. */
export async function drawSea(map) {
  const bounds = await map.getSource("city").getBounds();
  if (bounds.isEmpty()) return;
  const { lng, lat } = bounds.getCenter();
  const ring = Array.from({ length: 49 }, (_, at) => {
    const angle = (at / 48) * 2 * Math.PI;
    return [lng + SEA_DEGREES * Math.cos(angle), lat + SEA_DEGREES * Math.cos((lat * Math.PI) / 180) * Math.sin(angle)];
  });
  map.getSource("sea")?.setData({ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [ring] } });
}

const SEA_DEGREES = 0.6;

/** OpenStreetMap asks that its name leads to its copyright page. */
function link(attribution) {
  const text = document.createElement("span");
  text.textContent = attribution;
  return text.innerHTML.replace("OpenStreetMap", '<a href="https://www.openstreetmap.org/copyright" rel="noopener">OpenStreetMap</a>');
}

const STEPS = [30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002];
const LABEL_PX = 160; // one step finer makes up to 2.5 times as many: each still has room for its degrees

/** Meridians and parallels for what is in view, a handful of each, with their degrees at the edge. */
export function drawGraticule(map) {
  const source = map.getSource("graticule");
  if (!source) return;
  const bounds = map.getBounds();
  const [west, east] = [bounds.getWest(), bounds.getEast()];
  const [south, north] = [Math.max(-85, bounds.getSouth()), Math.min(85, bounds.getNorth())];
  const fewest = Math.min(5, Math.max(2, map.getContainer().clientWidth / LABEL_PX));
  const step = STEPS.find((each) => (east - west) / each >= fewest) ?? STEPS.at(-1);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const features = [];
  const add = (coordinates, at, text, anchor) => {
    features.push({ type: "Feature", properties: {}, geometry: { type: "LineString", coordinates } });
    features.push({ type: "Feature", properties: { text, anchor }, geometry: { type: "Point", coordinates: at } });
  };
  const name = (value, plus, minus) => `${Math.abs(value).toFixed(digits)}° ${value < 0 ? minus : value > 0 ? plus : ""}`.trim();
  for (let at = Math.ceil(west / step); at * step <= east; at += 1) {
    const lng = at * step;
    add([[lng, south], [lng, north]], [lng, north], name(((((lng + 180) % 360) + 360) % 360) - 180, "E", "W"), "top-left");
  }
  for (let at = Math.ceil(south / step); at * step <= north; at += 1) {
    const lat = at * step;
    add([[west, lat], [east, lat]], [west, lat], name(lat, "N", "S"), "bottom-left");
  }
  source.setData({ type: "FeatureCollection", features });
}

// Drawn by hand, some degrees coarse: enough to know which continent one looks at.
const LAND = [
  [-168, 66, -156, 71, -141, 70, -128, 70, -115, 68, -95, 72, -82, 68, -94, 60, -85, 55, -80, 52, -78, 58, -73, 62, -65, 59, -56, 52, -66, 49, -60, 46, -70, 43, -74, 40, -76, 35, -81, 31, -80, 25, -83, 29, -90, 29, -97, 27, -97, 22, -94, 18, -91, 19, -87, 21, -88, 16, -83, 15, -83, 10, -78, 9, -80, 7, -85, 10, -92, 14, -100, 17, -106, 22, -113, 31, -110, 23, -115, 29, -120, 34, -124, 40, -124, 48, -132, 55, -146, 61, -152, 59, -162, 55, -158, 58, -166, 61],
  [-78, 8, -72, 12, -62, 10, -52, 5, -50, 0, -44, -3, -35, -6, -38, -13, -41, -22, -48, -26, -53, -34, -57, -36, -62, -39, -65, -45, -69, -52, -72, -53, -75, -47, -73, -38, -71, -30, -70, -19, -76, -14, -81, -6, -80, 0],
  [-17, 21, -13, 27, -6, 36, 3, 37, 11, 37, 10, 34, 19, 31, 25, 32, 32, 31, 35, 28, 37, 21, 43, 12, 51, 12, 47, 4, 40, -4, 40, -15, 35, -20, 33, -27, 27, -34, 18, -34, 14, -24, 12, -16, 13, -6, 9, 1, 9, 4, 4, 6, -4, 5, -8, 4, -13, 9, -17, 14],
  [-9, 37, -9, 43, -2, 43, -1, 46, -4, 48, 2, 51, 8, 54, 8, 57, 11, 56, 12, 54, 21, 55, 24, 59, 30, 60, 22, 60, 21, 63, 25, 66, 18, 62, 17, 58, 12, 56, 8, 58, 5, 61, 12, 66, 20, 70, 31, 70, 41, 66, 35, 64, 44, 66, 54, 69, 68, 69, 72, 73, 82, 73, 105, 77, 113, 74, 130, 71, 150, 72, 170, 69, 180, 69, 180, 65, 175, 62, 163, 60, 156, 51, 156, 60, 143, 59, 135, 54, 141, 51, 131, 43, 127, 39, 129, 35, 126, 35, 121, 39, 122, 31, 116, 23, 108, 21, 109, 12, 105, 9, 100, 13, 104, 2, 98, 9, 98, 16, 91, 22, 80, 15, 80, 10, 77, 8, 73, 17, 72, 21, 67, 25, 57, 26, 51, 28, 48, 30, 56, 25, 60, 22, 52, 15, 43, 13, 39, 21, 35, 28, 34, 32, 36, 37, 27, 37, 26, 40, 23, 37, 19, 42, 13, 46, 18, 40, 16, 38, 12, 42, 9, 44, 3, 43, 0, 40, -2, 37, -6, 36],
  [114, -22, 122, -17, 130, -12, 136, -12, 136, -15, 140, -18, 142, -11, 146, -19, 153, -26, 150, -37, 145, -38, 139, -36, 131, -32, 124, -33, 115, -34],
  [-73, 78, -60, 82, -32, 83, -18, 80, -20, 73, -27, 68, -41, 65, -44, 60, -52, 65, -55, 70, -66, 76],
  [-6, 50, 1, 51, 1, 53, -2, 56, -3, 58, -6, 58, -5, 55, -3, 53, -5, 52],
  [-10, 52, -6, 52, -6, 54, -8, 55, -10, 54],
  [130, 31, 135, 34, 140, 35, 141, 41, 145, 43, 142, 45, 140, 42, 139, 38, 133, 35],
  [44, -25, 47, -25, 50, -16, 49, -12, 44, -17],
  [167, -46, 171, -44, 175, -41, 178, -38, 174, -36, 174, -40, 172, -41],
  [109, 1, 113, 3, 117, 7, 119, 5, 117, 0, 116, -4, 110, -3],
  [95, 5, 104, -2, 106, -6, 102, -4],
  [131, -1, 138, -2, 147, -6, 150, -10, 143, -9, 138, -8],
  [-24, 65, -14, 66, -14, 64, -20, 63],
  [-85, 22, -77, 21, -75, 20, -80, 23],
  [-180, -85, -180, -78, -150, -77, -120, -74, -75, -73, -58, -63, -62, -75, -40, -78, -10, -71, 40, -69, 80, -67, 110, -66, 150, -69, 170, -73, 165, -78, 180, -78, 180, -85],
];

function landOfTheWorld() {
  const ring = (flat) => {
    const corners = [];
    for (let at = 0; at < flat.length; at += 2) corners.push([flat[at], flat[at + 1]]);
    return [...corners, corners[0]];
  };
  const coordinates = LAND.map((flat) => [ring(flat)]);
  return { type: "Feature", properties: {}, geometry: { type: "MultiPolygon", coordinates } };
}
