// The chosen places of a campaign on the map: circles as circles, marks in their middle, all in view.
import { boundsOf, circle, fit, makeMap, maplibregl } from "./map.js";

const INK = "#0d9488";
const MOST_MARKED = 150; // with numbers; the others have the colour alone

function drawn(feature) {
  const { radius_m, marks } = feature.properties;
  return {
    ...feature,
    geometry: radius_m ? circle(feature.geometry.coordinates, radius_m) : feature.geometry,
    properties: { colour: marks[0]?.colour ?? INK },
  };
}

/** The marks of one place, side by side in its middle. */
function marker(feature) {
  const element = document.createElement("span");
  element.className = "nc-marks";
  element.title = feature.properties.name;
  element.append(...feature.properties.marks.map(({ text, colour }) => {
    const mark = document.createElement("i");
    mark.className = "nc-mark";
    mark.style.background = colour;
    mark.textContent = text;
    return mark;
  }));
  const [west, south, east, north] = boundsOf([feature]);
  return new maplibregl.Marker({ element }).setLngLat([(west + east) / 2, (south + north) / 2]);
}

/** A function that shows features with `marks` among their properties. */
export async function make(box) {
  const { map } = await makeMap(box);
  map.addSource("chosen", { type: "geojson", data: { type: "FeatureCollection", features: [] } });
  map.addLayer({ id: "chosen-fill", type: "fill", source: "chosen", paint: { "fill-color": ["get", "colour"], "fill-opacity": 0.25 } });
  map.addLayer({ id: "chosen-line", type: "line", source: "chosen", paint: { "line-color": ["get", "colour"], "line-width": 2 } });
  let markers = [];
  return (features) => {
    map.getSource("chosen").setData({ type: "FeatureCollection", features: features.map(drawn) });
    for (const one of markers) one.remove();
    markers = features.filter(({ properties }) => properties.marks.length).slice(0, MOST_MARKED).map(marker);
    for (const one of markers) one.addTo(map);
    map.resize();
    fit(map, features, { padding: 40, maxZoom: 16 });
  };
}
