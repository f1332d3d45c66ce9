// Things that happen, in order: a visit or an event each, so many times, on such days. Saves
// [{on, geofences, tags, dwell_s | event, where, days, times}]; what is not touched stays as it was.
import { dayButtons, short } from "./days.js";
import { h, say, select, stateOf, times } from "./dom.js";
import { pairs } from "./pairs.js";
import { drawPlaces, nameOf, picker } from "./places.js";

const KINDS = [
  ["entered", "comes in"], ["dwelled", "stays a while"], ["exited", "leaves"], ["event", "does something in the app"],
];
const UNITS = [[3600, "hours"], [60, "minutes"], [1, "seconds"]];
const MOST = 10;
// Of the steps in order, told apart on a light and a dark map; and of what calls it all off.
const INKS = ["#0d9488", "#b45309", "#4f46e5", "#be185d", "#15803d", "#0369a1", "#7c2d12", "#6d28d9", "#a16207", "#334155"];
const OFF = { text: "✕", colour: "#dc2626" };
const shown = { steps: [], off: [] }; // both fields share one map
const MOST_TIMES = 20;

/** All steps where they happen, numbered, and what the numbers mean. */
function drawAll() {
  const marked = [
    ...shown.steps.map((step, at) => ({ step, mark: { text: String(at + 1), colour: INKS[at % INKS.length] } })),
    ...shown.off.map((step) => ({ step, mark: OFF })),
  ];
  drawPlaces(document.getElementById("steps-map"), marked.map(({ step, mark }) => (
    { geofences: step.geofences ?? [], tags: step.tags ?? [], mark }
  )));
  const legend = document.getElementById("steps-legend");
  legend.hidden = !marked.length;
  legend.replaceChildren(...marked.map(({ step, mark }) => h("li", {},
    h("i", { class: "nc-mark", style: `background: ${mark.colour}` }, mark.text),
    mark === OFF ? "then nobody " : "", inWords(step))));
}

function inWords(step) {
  if (step.on === "event") return `does ${step.event || "something"} in the app, wherever they are`;
  const kind = KINDS.find(([name]) => name === step.on)?.[1] ?? step.on;
  const places = [...(step.geofences ?? []).map(nameOf), ...(step.tags ?? []).map((tag) => `tagged ${tag}`)];
  const named = places.slice(0, 3).join(", ") + (places.length > 3 ? ` and ${places.length - 3} more` : "");
  return `${kind}: ${named || "places still to be chosen"}`;
}

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const steps = Array.isArray(value) ? value : [];
  const list = h("div", { class: "nc-rows" });
  const more = h("button", {
    type: "button", class: "nc-add", onclick: () => { steps.push({ on: options.single ? "event" : "entered" }); redraw(); },
  }, options.single ? "+ Add what calls it off" : "+ Add a step");
  element.append(list, more);

  shown[options.single ? "off" : "steps"] = steps;

  function changed() {
    save(steps);
    drawAll();
  }

  function redraw() {
    changed();
    draw();
  }

  function draw() {
    list.replaceChildren(...steps.map(drawStep));
    more.hidden = steps.length >= (options.single ? 1 : MOST);
  }

  function put(step, name, said) {
    say(step, name, said);
    changed();
  }

  function setKind(step, on) {
    step.on = on;
    for (const name of on === "event" ? ["geofences", "tags"] : ["event", "where"]) delete step[name];
    if (on !== "dwelled") delete step.dwell_s;
    redraw();
  }

  function move(at, by) {
    steps.splice(at + by, 0, ...steps.splice(at, 1));
    redraw();
    list.children[at + by].querySelector(`[data-by="${by}"]:not(:disabled), [data-by]:not(:disabled)`)?.focus();
  }

  function dwell(step) {
    let [unit] = UNITS.find(([size]) => step.dwell_s % size === 0) ?? UNITS[1];
    const amount = h("input", {
      type: "number", min: 0, step: "any", class: "nc-input nc-number", value: step.dwell_s ? step.dwell_s / unit : "",
      "aria-label": "for at least", onchange: keep,
    });

    function keep() {
      put(step, "dwell_s", Number(amount.value) > 0 ? Math.max(1, Math.round(Number(amount.value) * unit)) : undefined);
    }
    return ["for at least", amount, select(UNITS, unit, (next) => { unit = Number(next); keep(); }, { "aria-label": "unit" })];
  }

  function days(step) {
    const box = h("span", {});
    const show = () => box.replaceChildren(dayButtons((step.days ?? []).map(short), (next) => {
      put(step, "days", next.length < 7 ? next : []);
      show();
    }));
    show();
    return box;
  }

  function places(step) {
    const box = h("div", { class: "nc-picker" });
    const chosen = { geofences: step.geofences ?? [], tags: step.tags ?? [] };
    picker(box, chosen, () => {
      put(step, "geofences", chosen.geofences);
      put(step, "tags", chosen.tags);
    });
    return box;
  }

  function happening(step) {
    const where = h("div", {});
    pairs(where, step.where, (next) => put(step, "where", next));
    return [
      h("input", {
        class: "nc-input nc-wide", value: step.event ?? "", placeholder: "an event, e.g. balance_low", "aria-label": "event",
        maxLength: 128, list: "known-events", onchange: (event) => put(step, "event", event.target.value.trim()),
      }),
      where,
    ];
  }

  function mover(at, by, sign, word) {
    return h("button", {
      type: "button", class: "nc-remove", "data-by": by, title: `Move ${word}`, "aria-label": `Move step ${at + 1} ${word}`,
      disabled: at + by < 0 || at + by >= steps.length, onclick: () => move(at, by),
    }, sign);
  }

  function drawStep(step, at) {
    const kinds = KINDS.some(([kind]) => kind === step.on) ? KINDS : [...KINDS, [step.on, step.on]];
    return h("div", { class: "nc-variant nc-step", role: "group", "aria-label": options.single ? "What calls it off" : `Step ${at + 1}` },
      h("div", { class: "nc-row" },
        options.single ? null : h("span", { class: "nc-joint" }, at ? "then" : "first"),
        select(kinds, step.on, (on) => setKind(step, on), { "aria-label": "what happens" }),
        step.on === "dwelled" ? dwell(step) : null,
        h("span", { class: "nc-step-buttons" },
          options.single || steps.length < 2 ? null : [mover(at, -1, "↑", "up"), mover(at, 1, "↓", "down")],
          h("button", {
            type: "button", class: "nc-remove", title: "Remove this", "aria-label": options.single ? "Remove this" : `Remove step ${at + 1}`,
            onclick: () => { steps.splice(at, 1); redraw(); },
          }, "×"))),
      step.on === "event" ? happening(step) : places(step),
      h("div", { class: "nc-row" }, options.single ? null : times(step.times, MOST_TIMES, "times", (next) => put(step, "times", next)), "on", days(step)));
  }

  draw();
  drawAll();
}
