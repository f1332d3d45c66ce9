// The chosen places of a campaign on the map: circles as circles, everything in view.
import { circle, fit, makeMap } from "./map.js";

const INK = "#0d9488";

function drawn(feature) {
  const { radius_m } = feature.properties;
  return radius_m ? { ...feature, geometry: circle(feature.geometry.coordinates, radius_m) } : feature;
}

/** A function that shows a FeatureCollection. */
export async function make(box) {
  const { map } = await makeMap(box);
  map.addSource("chosen", { type: "geojson", data: { type: "FeatureCollection", features: [] } });
  map.addLayer({ id: "chosen-fill", type: "fill", source: "chosen", paint: { "fill-color": INK, "fill-opacity": 0.25 } });
  map.addLayer({ id: "chosen-line", type: "line", source: "chosen", paint: { "line-color": INK, "line-width": 2 } });
  return ({ features }) => {
    map.getSource("chosen").setData({ type: "FeatureCollection", features: features.map(drawn) });
    map.resize();
    fit(map, features, { padding: 40, maxZoom: 16 });
  };
}
