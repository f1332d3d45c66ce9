// Imports: a file dropped, its places on a map, and the bar that follows the rows.
const LOOK_MS = 1000;
const number = (value) => value.toLocaleString("en");

const drop = document.getElementById("drop");
if (drop) upload();
const sample = document.getElementById("sample-map");
if (sample) showSample();
if (document.getElementById("bar")) follow();

function upload() {
  const input = drop.querySelector("input[type=file]");
  const title = drop.querySelector("b");
  const form = document.getElementById("upload");
  const chosen = () => { title.textContent = input.files[0] ? `${input.files[0].name} · ${size(input.files[0].size)}` : "Drop a file here, or choose one"; };
  input.addEventListener("change", chosen);
  for (const [kind, on] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", on);
      if (kind === "drop" && event.dataTransfer.files.length) {
        input.files = event.dataTransfer.files;
        chosen();
      }
    });
  }
  form.addEventListener("submit", () => {
    if (!input.files.length) return;
    document.getElementById("sending").hidden = false;
    document.getElementById("send").disabled = true;
  });
}

function size(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

async function showSample() {
  const { places } = JSON.parse(document.getElementById("import-options").textContent);
  const { boundsOf, makeMap } = await import("./map.js");
  const { INK } = await import("./geofence-layers.js");
  if (!places.features.length) {
    sample.closest(".nc-card").remove();
    return;
  }
  const { map } = await makeMap(sample, { bounds: boundsOf(places.features) });
  const shape = (kind) => ["==", ["geometry-type"], kind];
  map.addSource("sample", { type: "geojson", data: places });
  map.addLayer({ id: "sample-fill", type: "fill", source: "sample", filter: shape("Polygon"), paint: { "fill-color": INK.armed, "fill-opacity": 0.2 } });
  map.addLayer({ id: "sample-line", type: "line", source: "sample", filter: shape("Polygon"), paint: { "line-color": INK.armed, "line-width": 1.5 } });
  map.addLayer({ id: "sample-dot", type: "circle", source: "sample", filter: shape("Point"), paint: { "circle-color": INK.armed, "circle-radius": 4.5, "circle-stroke-color": "#ffffff", "circle-stroke-width": 1.2 } });
}

function follow() {
  const { url } = document.getElementById("import").dataset;
  const bar = document.getElementById("bar");
  const text = document.getElementById("import-text");
  const counts = document.getElementById("counts");
  const state = document.getElementById("import-state");
  let first = null;
  let last = null;

  const show = (found) => {
    const { rows_done: done, rows_total: total } = found;
    const share = total ? Math.min(1, done / total) : null;
    bar.classList.toggle("unknown", share === null);
    if (share !== null) {
      bar.firstElementChild.style.width = `${(share * 100).toFixed(1)}%`;
      bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    }
    state.textContent = found.state === "queued" ? "Queued" : "Running";
    document.getElementById("overdue").hidden = !found.overdue;
    text.textContent = found.state === "queued" ? "Waiting for a worker…" : `${number(done)}${total ? ` of ${number(total)}` : ""} rows${left(done, total)}. You may close this page.`;
    counts.replaceChildren(...Object.entries(found.counts).map(([name, count]) => {
      const box = document.createElement("div");
      box.className = `gf-count ${{ created: "good", refused: "bad", repaired: "warn", retired: "warn" }[name] ?? ""}`;
      const figure = document.createElement("b");
      figure.textContent = number(count);
      const label = document.createElement("span");
      label.textContent = name;
      box.append(figure, label);
      return box;
    }));
  };

  function left(done, total) {
    // Rows come in chunks: the speed is that up to the last one, and between two the time runs down.
    const now = performance.now();
    if (first === null) first = { at: now, done };
    if (last === null || done !== last.done) last = { at: now, done };
    const speed = (last.done - first.done) / (last.at - first.at);
    if (!total || !(speed > 0) || last.at - first.at < 3000) return "";
    const seconds = Math.max(1, Math.ceil(((total - done) / speed - (now - last.at)) / 1000));
    return seconds > 90 ? `, about ${Math.ceil(seconds / 60)} minutes to go` : `, about ${seconds} second${seconds === 1 ? "" : "s"} to go`;
  }

  const look = async () => {
    try {
      const answer = await fetch(url);
      if (answer.ok) {
        const found = await answer.json();
        if (!found.under_way) {
          location.reload();
          return;
        }
        show(found);
      }
    } catch {
      // The server restarts; the import keeps its place, and so does this page.
    }
    setTimeout(look, LOOK_MS);
  };

  show(JSON.parse(document.getElementById("import-progress").textContent));
  setTimeout(look, LOOK_MS);
}
