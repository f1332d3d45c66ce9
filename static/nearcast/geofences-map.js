// The map of all geofences of a brand: hover, click, zoom into a crowd.
import { h } from "./dom.js";
import { addGeofences } from "./geofence-layers.js";
import { makeMap } from "./map.js";

const element = document.getElementById("overview");
if (element) start();

async function start() {
  const options = JSON.parse(document.getElementById("map-options").textContent);
  const { map, popup } = await makeMap(element, { bounds: options.bounds });
  addGeofences(map, options);
  let near = null;

  const mark = (id) => {
    if (near !== null) map.setFeatureState({ source: "geofences", sourceLayer: "shapes", id: near }, { near: false });
    near = id;
    if (near !== null) map.setFeatureState({ source: "geofences", sourceLayer: "shapes", id: near }, { near: true });
  };

  map.on("mousemove", (event) => {
    const [found] = at(event.point);
    map.getCanvas().style.cursor = found ? "pointer" : "";
    mark(found?.sourceLayer === "shapes" ? found.id : null);
  });

  map.on("click", (event) => {
    const found = at(event.point);
    if (!found.length) return;
    const [first] = found;
    if (first.sourceLayer === "dots" && first.properties.count > 1) {
      map.easeTo({ center: first.geometry.coordinates, zoom: Math.min(18, map.getZoom() + 2.5) });
      return;
    }
    const places = [...new Map(found.map((place) => [place.id, place])).values()];
    popup.setLngLat(event.lngLat).setDOMContent(h("div", { class: "gf-popup" }, places.slice(0, 8).map(entry),
      places.length > 8 ? h("p", { class: "nc-faint" }, `and ${places.length - 8} more here`) : null)).addTo(map);
  });

  function at(point) {
    const around = [[point.x - 3, point.y - 3], [point.x + 3, point.y + 3]];
    const dots = map.queryRenderedFeatures(around, { layers: ["geofences-dot"] });
    return dots.length ? dots : map.queryRenderedFeatures(around, { layers: ["geofences-fill"] });
  }

  function entry(place) {
    const { name, armed } = place.properties;
    return h("p", {}, h("a", { class: "nc-link", href: options.change.replace("/0/", `/${place.id}/`) }, name || `Geofence ${place.id}`),
      " ", h("span", { class: armed ? "nc-tag good" : "nc-tag" }, armed ? "armed" : "not armed"));
  }
}
