// The live page: geofences on the map, phones and happenings on a canvas above it, the feed beside.
import { asBox, circle, makeMap } from "./map.js";
import { calm, h } from "./dom.js";
import { Sky } from "./sky.js";

const options = JSON.parse(document.getElementById("live-options").textContent);
const root = document.getElementById("live");
const feed = document.getElementById("live-feed");
const stateLine = document.getElementById("live-state");
const pauseButton = document.getElementById("live-pause");
const calmly = matchMedia("(prefers-reduced-motion: reduce)").matches;

const FEED_ROWS = 80;
const MINUTE_S = 60;
const STATES = { connecting: "Connecting…", live: "Live", paused: "Paused", refused: "You may not watch this brand" };
const ICONS = { entered: "login", exited: "logout", dwelled: "timer", offer: "redeem", failed: "error" };
const WORDS = { entered: "entered", exited: "left", dwelled: "stayed in" };

function setState(state) {
  root.dataset.state = state;
  stateLine.textContent = STATES[state];
}

/** Counts of the last minute, one bar a second. */
class Minute {
  constructor() {
    this.seconds = new Array(MINUTE_S).fill(0);
    this.at = Math.floor(Date.now() / 1000);
  }
  add(count) {
    this.roll();
    this.seconds[MINUTE_S - 1] += count;
  }
  roll() {
    const now = Math.floor(Date.now() / 1000);
    const passed = Math.min(now - this.at, MINUTE_S);
    this.seconds.splice(0, passed);
    this.seconds.push(...new Array(passed).fill(0));
    this.at = now;
  }
  total() {
    return this.seconds.reduce((sum, each) => sum + each, 0);
  }
  /** Per second over the last few whole seconds: steady enough to read. */
  rate() {
    const last = this.seconds.slice(-6, -1);
    return last.reduce((sum, each) => sum + each, 0) / last.length;
  }
}

const counts = { fixes: new Minute(), moves: new Minute(), offers: new Minute() };

function showCounts() {
  for (const minute of Object.values(counts)) minute.roll();
  const shown = {
    phones: sky.phones.size,
    fixes: Math.round(counts.fixes.rate()),
    moves: counts.moves.total(),
    offers: counts.offers.total(),
  };
  for (const [name, value] of Object.entries(shown)) {
    root.querySelector(`[data-count="${name}"]`).textContent = value.toLocaleString("en");
  }
  const ink = getComputedStyle(root).getPropertyValue("--nc-brand") || "#0d9488";
  for (const canvas of root.querySelectorAll("[data-spark]")) drawSpark(canvas, counts[canvas.dataset.spark], ink);
}

function drawSpark(canvas, minute, ink) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [120, 28];
  if (canvas.width !== width * ratio) [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = ink;
  const most = Math.max(4, ...minute.seconds);
  minute.seconds.forEach((count, index) => {
    const tall = Math.max(count ? 2 : 0.75, (count / most) * (height - 2));
    pen.globalAlpha = count ? 0.85 : 0.25;
    pen.fillRect(index * 2, height - tall, 1.4, tall);
  });
}

// By the brand's clock, as on every other page, wherever the browser is.
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone: options.timezone });
const inUtc = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });

const link = (pattern, id) => pattern.replace("/0/", `/${id}/`);

function row(each, isNew) {
  const failed = each.kind === "offer" && each.outcome !== "sent";
  const kind = failed ? "failed" : each.kind;
  const device = h("a", { href: link(options.device, each.device) }, `Phone ${each.device}`);
  const what =
    each.kind === "offer"
      ? [h("b", {}, each.title || each.name), h("small", {}, device, failed ? ` · not sent: ${each.outcome}` : ` · ${each.name}`)]
      : [h("b", {}, `${each.place || "A geofence"}`), h("small", {}, device, ` ${WORDS[each.kind]} it${each.reason ? ` (${each.reason.replaceAll("_", " ")})` : ""}`)];
  const at = new Date(each.at);
  return h(
    "li",
    { class: `${kind}${isNew ? " new" : ""}`, onclick: (event) => event.target.closest("a") || show(each) },
    h("span", { class: "material-symbols-outlined" }, ICONS[kind] || "place"),
    h("div", {}, what),
    h("time", { dateTime: each.at, title: `${inUtc.format(at)} UTC` }, clock.format(at)),
  );
}

function tell(happened, { isNew = true } = {}) {
  for (const each of happened) {
    const key = each.kind === "offer" ? "offer" : "transition";
    if (each.id > (seen[key] || 0)) seen[key] = each.id;
    if (told.has(`${key}${each.id}`)) continue;
    told.add(`${key}${each.id}`);
    feed.prepend(row(each, isNew && happened.length < 8)); // a burst does not flash
  }
  while (feed.children.length > FEED_ROWS) feed.lastElementChild.remove();
  if (told.size > 5000) told = new Set([...told].slice(-1000));
}

/** Moves the map to where something happened and says so again. */
function show(each) {
  if (each.lat === null) return;
  map.easeTo({ center: [each.lng, each.lat], zoom: Math.max(map.getZoom(), 16), animate: !calmly });
  sky.pulse(each);
}

const seen = {}; // the last id of each kind: where to take up again
let told = new Set();
let socket = null;
let wait = 500;
let paused = false;

function connect() {
  setState("connecting");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live?brand=${options.brand}`);
  socket.onopen = () => {
    wait = 500;
    setState("live");
    say({ type: "resume", ...seen });
    look();
  };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (paused) return;
    if (event.code === 4403) return setState("refused");
    setState("connecting");
    setTimeout(connect, wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, 10000);
  };
}

function say(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

/** Tells the server what part of the world is on the screen. */
function look() {
  const bounds = map.getBounds();
  say({ type: "view", bounds: [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()] });
}

function take(frame) {
  if (frame.type === "places") return showPlaces(frame.features);
  if (frame.type === "devices") return sky.stand(frame.devices);
  if (frame.type === "happened") return tell(frame.happened, { isNew: false });
  sky.move(frame.devices);
  counts.fixes.add(frame.fixes);
  for (const each of frame.happened) {
    counts[each.kind === "offer" ? "offers" : "moves"].add(1);
    sky.pulse(each);
    if (each.kind === "entered" || each.kind === "exited") people(each.geofence, each.kind === "entered" ? 1 : -1);
  }
  tell(frame.happened);
}

pauseButton.addEventListener("click", () => {
  paused = !paused;
  pauseButton.setAttribute("aria-pressed", String(paused));
  pauseButton.children[0].textContent = paused ? "play_arrow" : "pause";
  pauseButton.children[1].textContent = paused ? "Go on" : "Pause";
  sky.hold(paused);
  if (paused) {
    socket?.close();
    setState("paused");
  } else connect();
});

let inside = new Map(); // geofence → phones in it, kept by what the feed says until the next view

function showPlaces(features) {
  inside = new Map(features.map((each) => [each.id, each.properties.inside]));
  const drawn = features.map((each) => (each.properties.radius_m ? { ...each, geometry: circle(each.geometry.coordinates, each.properties.radius_m) } : each));
  map.getSource("places").setData({ type: "FeatureCollection", features: drawn });
  for (const [id, count] of inside) map.setFeatureState({ source: "places", id }, { inside: count });
}

function people(id, more) {
  if (!inside.has(id)) return;
  inside.set(id, Math.max(0, inside.get(id) + more));
  map.setFeatureState({ source: "places", id }, { inside: inside.get(id) });
}

function addLayers() {
  const crowd = ["coalesce", ["feature-state", "inside"], 0];
  const ink = ["case", ["get", "armed"], "#0d9488", "#7c8a88"];
  map.addSource("places", { type: "geojson", tolerance: 0.05, data: { type: "FeatureCollection", features: [] } });
  map.addLayer({
    id: "places-fill", type: "fill", source: "places",
    paint: { "fill-color": ink, "fill-opacity": ["interpolate", ["linear"], crowd, 0, 0.1, 1, 0.2, 20, 0.45] },
  });
  map.addLayer({
    id: "places-line", type: "line", source: "places",
    paint: { "line-color": ink, "line-width": ["interpolate", ["linear"], ["zoom"], 11, 0.8, 16, 2.2], "line-opacity": 0.8 },
  });
}

/** Everything of the brand in the part of the map that no panel covers. */
function fitBetweenPanels() {
  if (!about.bounds) return;
  const beside = root.clientWidth > 900;
  const padding = { top: 120, left: 30, right: beside ? 370 : 30, bottom: beside ? 40 : root.clientHeight * 0.4 };
  map.fitBounds(asBox(about.bounds), { padding, maxZoom: 16, animate: false });
}

function click(event) {
  const device = sky.near(event.point.x, event.point.y);
  if (device !== null) {
    location.href = link(options.device, device);
    return;
  }
  const [place] = map.queryRenderedFeatures(event.point, { layers: ["places-fill"] });
  if (!place) return;
  const count = inside.get(place.id) ?? 0;
  const body = h("div", {},
    h("b", {}, place.properties.name),
    h("div", {}, `${count} ${count === 1 ? "phone" : "phones"} inside`, place.properties.armed ? "" : " · not armed"),
    h("a", { href: link(options.geofence, place.id) }, "Open this geofence"),
  );
  popup.setLngLat(event.lngLat).setDOMContent(body).addTo(map);
}

const { map, popup, about } = await makeMap(document.getElementById("live-map"));
fitBetweenPanels();
const canvas = document.getElementById("live-sky");
map.getCanvasContainer().append(canvas); // above the map, below its buttons and what pops up
const sky = new Sky(canvas, map, { calmly });
addLayers();
map.on("moveend", calm(250, look));
map.on("click", click);
map.on("mousemove", (event) => {
  map.getCanvas().style.cursor = sky.near(event.point.x, event.point.y) !== null ? "pointer" : "";
});
setInterval(showCounts, 1000);
connect();
