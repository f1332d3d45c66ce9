// One geofence on a map, being drawn: areas with holes through Terra Draw, or one circle with two
// handles. Knows its shape as {geometry, radius_m}, its history, and what may be done next.
import {
  TerraDraw, TerraDrawCircleMode, TerraDrawModeUndoRedo, TerraDrawPolygonMode, TerraDrawSelectMode,
} from "../build/terra-draw/terra-draw.modern.js";
import { TerraDrawMapLibreGLAdapter } from "../build/terra-draw-maplibre-gl-adapter/terra-draw-maplibre-gl-adapter.modern.js";
import { INK, nothing } from "./geofence-layers.js";
import { circle, distance_m, fit, maplibregl } from "./map.js";

const MOST_CORNERS = 1500; // beyond, dragging corners by hand makes no sense and is slow
const DECIMALS = 9; // a tenth of a millimetre; Terra Draw takes no more
const LEAST_RADIUS_M = 5; // smaller than a click's wobble: the usual radius is meant
const HOLE = "#b45309";

export class Drawing {
  #map;
  #options;
  #draw = null;
  #history = [];
  #circle = null; // {centre: [lng, lat], radius_m}
  #fixed = null; // a geometry with too many corners to edit
  #handles = null;
  #loading = false;
  mode = "select";
  chosen = null;
  note = "";

  constructor(map, options) {
    this.#map = map;
    this.#options = options;
    map.addSource("ring", { type: "geojson", data: nothing() });
    map.addLayer({ id: "ring-fill", type: "fill", source: "ring", paint: { "fill-color": INK.armed, "fill-opacity": 0.22 } });
    map.addLayer({ id: "ring-line", type: "line", source: "ring", paint: { "line-color": INK.armed, "line-width": 2.5 } });
    this.#begin();
  }

  #begin() {
    const isHole = (feature) => feature.properties.hole === true;
    const ink = (feature) => (isHole(feature) ? HOLE : INK.armed);
    const area = {
      fillColor: ink, outlineColor: ink, fillOpacity: (feature) => (isHole(feature) ? 0.3 : 0.22), outlineWidth: 2.5,
      closingPointColor: "#ffffff", closingPointOutlineColor: INK.armed, closingPointWidth: 6, closingPointOutlineWidth: 2.5,
      coordinatePointColor: INK.armed, coordinatePointOutlineColor: "#ffffff", coordinatePointWidth: 5, coordinatePointOutlineWidth: 1.5,
    };
    const corners = { draggable: true, midpoints: { draggable: true }, deletable: true };
    this.#draw = new TerraDraw({
      adapter: new TerraDrawMapLibreGLAdapter({ map: this.#map, coordinatePrecision: DECIMALS }),
      undoRedo: { modeLevel: new TerraDrawModeUndoRedo() },
      modes: [
        new TerraDrawPolygonMode({ styles: area, pointerDistance: 18, showCoordinatePoints: true }),
        new TerraDrawCircleMode({ styles: area, drawInteraction: "click-move-or-drag", startingRadiusKilometers: 0.00001 }),
        new TerraDrawSelectMode({
          pointerDistance: 22,
          flags: { polygon: { feature: { draggable: true, selfIntersectable: true, coordinates: corners } } },
          styles: {
            selectedPolygonColor: ink, selectedPolygonOutlineColor: ink, selectedPolygonFillOpacity: 0.3, selectedPolygonOutlineWidth: 3,
            selectionPointColor: "#ffffff", selectionPointOutlineColor: ink, selectionPointWidth: 6, selectionPointOutlineWidth: 2.5,
            midPointColor: ink, midPointOutlineColor: "#ffffff", midPointWidth: 4, midPointOutlineWidth: 1.5,
          },
        }),
      ],
    });
    this.#draw.start();
    this.#draw.setMode("select");
    this.#draw.on("finish", (id, { action, mode }) => this.#finished(id, action, mode));
    this.#draw.on("change", (ids, type) => {
      if (!this.#loading && type === "delete" && this.mode === "select") this.#settle();
    });
    this.#draw.on("select", (id) => { this.chosen = id; this.#tell(); });
    this.#draw.on("deselect", () => { this.chosen = null; this.#tell(); });
    this.#draw.on("history", () => this.#tell());
  }

  get kind() {
    if (this.#circle) return "circle";
    return this.#fixed || this.#areas().length ? "areas" : "empty";
  }

  /** {geometry, radius_m} as the server takes it, or null. */
  get shape() {
    if (this.#circle) {
      return { geometry: { type: "Point", coordinates: this.#circle.centre }, radius_m: this.#circle.radius_m };
    }
    if (this.#fixed) return { geometry: this.#fixed, radius_m: null };
    const areas = this.#areas();
    const polygons = areas.filter((each) => !each.properties.hole).map((each) => [each.geometry.coordinates[0]]);
    if (!polygons.length) return null;
    for (const hole of areas.filter((each) => each.properties.hole)) {
      const [ring] = hole.geometry.coordinates;
      (polygons.find(([outer]) => holds(outer, ring[0])) ?? polygons[0]).push(ring);
    }
    const geometry = polygons.length === 1
      ? { type: "Polygon", coordinates: polygons[0] }
      : { type: "MultiPolygon", coordinates: polygons };
    return { geometry, radius_m: null };
  }

  #areas() {
    return this.#draw.getSnapshot().filter((feature) =>
      feature.geometry.type === "Polygon" && feature.properties.mode === "polygon" && !feature.properties.currentlyDrawing);
  }

  get canUndo() {
    return this.#isDrawing() ? this.#draw.canUndo() : this.#history.length > 1;
  }

  get canRemove() {
    return this.mode !== "select" || this.chosen !== null || this.kind !== "empty";
  }

  /** Show a shape and begin its history with it. */
  load(shape, { fit: inView = false } = {}) {
    this.#show(shape);
    this.#history = [this.shape];
    const areas = this.#areas();
    if (areas.length === 1 && !this.#options.readonly) this.#draw.selectFeature(areas[0].id);
    if (inView && shape) fit(this.#map, [{ geometry: shape.geometry, properties: { radius_m: shape.radius_m } }]);
    this.#options.onchange(this.shape, { byHand: false });
    this.#tell();
  }

  /** Begin to draw an area, a hole or a circle, or stop drawing. */
  draw(mode) {
    if (this.#options.readonly) return;
    this.mode = mode;
    this.chosen = null;
    this.#draw.setMode(mode === "hole" ? "polygon" : mode);
    this.#tell();
  }

  undo() {
    if (this.#isDrawing()) {
      this.#draw.undo();
    } else if (this.#history.length > 1) {
      this.#history.pop();
      this.#show(this.#history.at(-1));
      this.#options.onchange(this.shape, { byHand: true });
    }
    this.#tell();
  }

  /** Stop drawing; else take away the chosen area, the only one, or the circle. */
  remove() {
    if (this.mode !== "select") {
      this.draw("select");
      return;
    }
    if (this.#circle || this.#fixed) this.#show(null);
    else {
      const areas = this.#areas();
      const gone = this.chosen ?? (areas.length === 1 ? areas[0].id : null);
      if (gone === null) {
        this.note = "Click the area that is to go, then Delete.";
        this.#tell();
        return;
      }
      this.#quietly(() => {
        if (this.chosen !== null) this.#draw.deselectFeature(gone);
        this.#draw.removeFeatures([gone]);
      });
    }
    this.chosen = null;
    this.#settle();
  }

  /** Make the circle this large; nothing where there is none. */
  resize(radius_m) {
    if (!this.#circle) return;
    this.#circle.radius_m = radius_m;
    this.#drawCircle();
    this.#settle();
  }

  /** A place that was searched: in circle mode that is its middle. */
  point(centre) {
    if (this.mode !== "circle" || this.#isDrawing()) return;
    this.#setCircle(centre, this.#options.radius_m());
  }

  #isDrawing() {
    return this.mode !== "select" && this.#draw.getModeState() === "drawing";
  }

  #finished(id, action, mode) {
    if (action !== "draw") {
      this.#settle();
      return;
    }
    const drawn = this.#draw.getSnapshotFeature(id);
    if (mode === "circle") {
      const [ring] = drawn.geometry.coordinates;
      const lats = ring.map(([, lat]) => lat);
      const lngs = ring.map(([lng]) => lng);
      const centre = [middle(lngs), middle(lats)];
      const drawn_m = distance_m(centre, [centre[0], Math.max(...lats)]);
      this.#quietly(() => this.#draw.removeFeatures([id]));
      this.#setCircle(centre, drawn_m < LEAST_RADIUS_M ? this.#options.radius_m() : Math.min(100_000, drawn_m));
      return;
    }
    if (this.mode === "hole") {
      const inside = this.#areas().some((each) => !each.properties.hole && each.id !== id && holds(each.geometry.coordinates[0], drawn.geometry.coordinates[0][0]));
      if (inside) this.#draw.updateFeatureProperties(id, { hole: true });
      else {
        this.#quietly(() => this.#draw.removeFeatures([id]));
        this.note = "A hole lies inside an area; that one did not.";
      }
    } else if (this.#circle || this.#fixed) {
      this.note = "The area has taken the place of what was there. Undo brings that back.";
      this.#dropOthers();
    }
    this.mode = "select";
    this.#settle();
    // Terra Draw is still inside its own click here; it must end before another mode begins.
    setTimeout(() => {
      this.#draw.setMode("select");
      if (this.#draw.hasFeature(id)) this.#draw.selectFeature(id);
    });
  }

  #setCircle(centre, radius_m) {
    if (this.kind === "areas") this.note = "The circle has taken the place of the area. Undo brings that back.";
    this.#quietly(() => this.#draw.clear());
    this.#fixed = null;
    this.#circle = { centre: centre.map(rounded), radius_m: radius_m >= 100 ? Math.round(radius_m) : Math.round(radius_m * 10) / 10 };
    this.#drawCircle();
    this.mode = "select";
    this.#settle();
    setTimeout(() => this.#draw.setMode("select"));
  }

  #dropOthers() {
    this.#circle = null;
    this.#fixed = null;
    this.#drawCircle();
  }

  /** The shape is as it shall be for now: into the history, and out to the page. */
  #settle() {
    const shape = this.shape;
    if (JSON.stringify(shape) !== JSON.stringify(this.#history.at(-1))) this.#history.push(shape);
    this.#options.onchange(shape, { byHand: true });
    this.#tell();
  }

  #tell() {
    this.#options.onmode(this.mode);
    this.note = "";
  }

  #quietly(act) {
    this.#loading = true;
    act();
    this.#loading = false;
  }

  #show(shape) {
    this.chosen = null;
    this.mode = "select";
    this.#quietly(() => {
      this.#draw.setMode("select");
      this.#draw.clear();
    });
    this.#circle = null;
    this.#fixed = null;
    if (shape?.geometry.type === "Point") {
      this.#circle = { centre: shape.geometry.coordinates.slice(0, 2), radius_m: shape.radius_m };
    } else if (shape) {
      this.#showAreas(shape.geometry);
    }
    this.#drawCircle();
  }

  #showAreas(geometry) {
    const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
    const corners = polygons.flat().reduce((sum, ring) => sum + ring.length, 0);
    const features = polygons.flatMap((rings) => rings.map((ring, at) => ({
      type: "Feature",
      properties: { mode: "polygon", ...(at ? { hole: true } : {}) },
      geometry: { type: "Polygon", coordinates: [ring.map((corner) => corner.slice(0, 2).map(rounded))] },
    })));
    let taken = corners <= MOST_CORNERS && !this.#options.readonly;
    if (taken) {
      this.#quietly(() => {
        const verdicts = this.#draw.addFeatures(features);
        taken = verdicts.every((verdict) => verdict.valid);
        if (!taken) this.#draw.clear();
      });
    }
    if (taken) return;
    this.#fixed = geometry;
    this.note = this.#options.readonly ? "" : `This outline has ${corners.toLocaleString("en")} corners, too many to pull one by one. Draw it anew, or import it again to change it.`;
  }

  #drawCircle() {
    const ring = this.#map.getSource("ring");
    if (this.#fixed) ring.setData({ type: "Feature", properties: {}, geometry: this.#fixed });
    else if (this.#circle) ring.setData({ type: "Feature", properties: {}, geometry: circle(this.#circle.centre, this.#circle.radius_m) });
    else ring.setData(nothing());
    this.#placeHandles();
  }

  #placeHandles() {
    if (!this.#circle || this.#options.readonly) {
      this.#handles?.forEach((handle) => handle.remove());
      this.#handles = null;
      return;
    }
    const { centre, radius_m } = this.#circle;
    const edge = circle(centre, radius_m, 4).coordinates[0][1]; // due east
    if (this.#handles) {
      this.#handles[0].setLngLat(centre);
      this.#handles[1].setLngLat(edge);
      return;
    }
    const handle = (name, title, at, ondrag) => {
      const element = document.createElement("div");
      element.className = `gf-handle gf-handle-${name}`;
      element.title = title;
      const marker = new maplibregl.Marker({ element, draggable: true }).setLngLat(at).addTo(this.#map);
      marker.on("drag", () => { ondrag(marker.getLngLat().toArray()); this.#drawCircle(); this.#live(); });
      marker.on("dragend", () => this.#settle());
      return marker;
    };
    this.#handles = [
      handle("middle", "Move the circle", centre, (at) => { this.#circle.centre = at.map(rounded); }),
      handle("edge", "Resize the circle", edge, (at) => {
        const metres = distance_m(this.#circle.centre, at);
        this.#circle.radius_m = Math.min(100_000, Math.max(1, metres >= 100 ? Math.round(metres) : Math.round(metres * 10) / 10));
      }),
    ];
  }

  /** While a handle is pulled: the page follows, the history waits for the end. */
  #live() {
    this.#options.onchange(this.shape, { byHand: true });
  }
}

const rounded = (degrees) => Number(degrees.toFixed(DECIMALS));
const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;

/** Whether a ring holds a point: an odd number of its edges lies to the east. */
function holds(ring, [lng, lat]) {
  let inside = false;
  for (let at = 0, before = ring.length - 1; at < ring.length; before = at, at += 1) {
    const [ax, ay] = ring[at];
    const [bx, by] = ring[before];
    if (ay > lat !== by > lat && lng < ((bx - ax) * (lat - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
