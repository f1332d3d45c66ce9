// A story's small map on streets: takes the place of the drawing where the browser can show it.
import { circle, fit, makeMap, maplibregl } from "./map.js";

const INK = { place: "#0d9488", accuracy: "#3b82f6", trail: "#64748b" };
const MARKS = { entered: "#16a34a", dwelled: "#d97706", exited: "#dc2626", last: "#2563eb" };

/** Circles as polygons, an accuracy around each mark that stands out, and the trail as a line. */
function drawn(features) {
  const found = [];
  const trail = features.filter(({ properties }) => properties.kind === "trail");
  for (const feature of features) {
    const { properties, geometry } = feature;
    if (properties.kind === "place" && properties.radius_m) {
      found.push({ ...feature, geometry: circle(geometry.coordinates, properties.radius_m) });
    } else {
      found.push(feature);
    }
    if (properties.kind in MARKS && properties.accuracy_m) {
      found.push({
        type: "Feature", geometry: circle(geometry.coordinates, properties.accuracy_m), properties: { kind: "accuracy" },
      });
    }
  }
  if (trail.length > 1) {
    const coordinates = trail.map(({ geometry }) => geometry.coordinates);
    found.push({ type: "Feature", geometry: { type: "LineString", coordinates }, properties: { kind: "line" } });
  }
  return { type: "FeatureCollection", features: found };
}

const only = (...kinds) => ["in", ["get", "kind"], ["literal", kinds]];

export async function mount(element) {
  const box = element.querySelector(".nc-map");
  const drawing = element.querySelector("svg");
  const { features } = JSON.parse(element.querySelector('script[type="application/json"]').textContent);
  box.hidden = false;
  let made;
  try {
    made = await makeMap(box);
  } catch {
    box.remove(); // the drawing stays
    return;
  }
  const { map, popup } = made;
  drawing.remove();
  const colour = ["match", ["get", "kind"], ...Object.entries(MARKS).flat(), INK.trail];
  map.addSource("story", { type: "geojson", data: drawn(features) });
  const layer = (id, type, kinds, paint) => map.addLayer({ id, type, source: "story", filter: only(...kinds), paint });
  layer("story-place", "fill", ["place"], { "fill-color": INK.place, "fill-opacity": 0.18 });
  layer("story-edge", "line", ["place"], { "line-color": INK.place, "line-width": 2 });
  layer("story-accuracy", "fill", ["accuracy"], { "fill-color": INK.accuracy, "fill-opacity": 0.14 });
  layer("story-line", "line", ["line"], { "line-color": INK.trail, "line-width": 1.5, "line-opacity": 0.6 });
  layer("story-trail", "circle", ["trail"], { "circle-color": INK.trail, "circle-radius": 3 });
  layer("story-marks", "circle", Object.keys(MARKS), {
    "circle-color": colour, "circle-radius": 7, "circle-stroke-color": "#fff", "circle-stroke-width": 2,
  });
  const near = features.filter(({ properties }) => properties.kind !== "place");
  fit(map, near.length ? near.concat(features.filter(({ properties }) => properties.radius_m)) : features, { padding: 48 });
  for (const id of ["story-trail", "story-marks"]) {
    map.on("mousemove", id, ({ features: [hit] }) => {
      map.getCanvas().style.cursor = "default";
      popup.setLngLat(hit.geometry.coordinates).setText(hit.properties.label).addTo(map);
    });
    map.on("mouseleave", id, () => popup.remove());
  }
  map.addControl(new maplibregl.FullscreenControl(), "top-right");
}
