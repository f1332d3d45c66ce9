// The chosen places of a campaign on the map: circles as circles, everything in view.
import { makeMap } from "./map.js";

const EARTH_RADIUS_M = 6371008.8;

/** A circle as a ring of 64 corners; a degree of longitude shrinks with the latitude. */
function ring([lng, lat], radius_m) {
  const up = (radius_m / EARTH_RADIUS_M) * (180 / Math.PI);
  const across = up / Math.max(0.01, Math.cos((lat * Math.PI) / 180));
  return Array.from({ length: 65 }, (_, at) => {
    const angle = (at / 64) * 2 * Math.PI;
    return [lng + across * Math.cos(angle), lat + up * Math.sin(angle)];
  });
}

function drawn(feature) {
  if (!feature.properties.radius_m) return feature;
  const geometry = { type: "Polygon", coordinates: [ring(feature.geometry.coordinates, feature.properties.radius_m)] };
  return { ...feature, geometry };
}

function* corners(coordinates) {
  if (typeof coordinates[0] === "number") yield coordinates;
  else for (const part of coordinates) yield* corners(part);
}

export async function make(box) {
  const { map } = await makeMap(box);
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--nc-map-fill") || "#0d9488";
  map.addSource("chosen", { type: "geojson", data: { type: "FeatureCollection", features: [] } });
  map.addLayer({ id: "chosen-fill", type: "fill", source: "chosen", paint: { "fill-color": colour, "fill-opacity": 0.25 } });
  map.addLayer({ id: "chosen-line", type: "line", source: "chosen", paint: { "line-color": colour, "line-width": 2 } });
  return (collection) => {
    const features = collection.features.map(drawn);
    map.getSource("chosen").setData({ type: "FeatureCollection", features });
    const spots = features.flatMap((feature) => [...corners(feature.geometry.coordinates)]);
    if (!spots.length) return;
    const [lngs, lats] = [spots.map(([lng]) => lng), spots.map(([, lat]) => lat)];
    const least = (values) => values.reduce((a, b) => Math.min(a, b));
    const most = (values) => values.reduce((a, b) => Math.max(a, b));
    map.resize();
    map.fitBounds([[least(lngs), least(lats)], [most(lngs), most(lats)]], { padding: 40, maxZoom: 16, animate: false });
  };
}
