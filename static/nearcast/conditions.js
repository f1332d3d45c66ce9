// A condition tree as rows and groups. Saves the JSON tree of campaigns.conditions; {} is everybody.
import { h, select, stateOf } from "./dom.js";

const KINDS = {
  attribute: "attribute", platform: "platform", locale: "language", app_version: "app version",
  segment: "segment", event: "event", visits: "visits", area: "area", consent: "consent", timezone: "time zone",
  external_id: "external id", bucket: "test share",
};
const FRESH = {
  attribute: () => ({ attribute: "", op: "eq", value: "" }),
  platform: () => ({ platform: ["ios"] }),
  locale: () => ({ locale: ["en"] }),
  app_version: () => ({ app_version: "1.0", op: "gte" }),
  segment: (options) => ({ segment: options.segments?.[0]?.[0] ?? "" }),
  event: () => ({ event: "", op: "gte", value: 1, within_s: 2592000 }),
  visits: () => ({ visits: { tags: [] }, measure: "count", op: "gte", value: 1, within_s: 2592000 }),
  area: () => ({ area: "home", places: { tags: [] } }),
  consent: () => ({ consent: "marketing" }),
  timezone: () => ({ timezone: ["Europe/Paris"] }),
  external_id: () => ({ external_id: [] }),
  bucket: () => ({ bucket: [0, 50], of: 100, salt: "a" }),
};
const OPS = [
  ["eq", "is"], ["ne", "is not"], ["in", "is one of"], ["not_in", "is none of"],
  ["gt", "is over"], ["gte", "is at least"], ["lt", "is under"], ["lte", "is at most"],
  ["contains", "contains"], ["starts_with", "starts with"], ["exists", "is known"], ["missing", "is not known"],
];
const SIZES = OPS.filter(([op]) => ["eq", "gt", "gte", "lt", "lte"].includes(op));
const WITHIN = [
  ["", "ever"], [3600, "in the last hour"], [86400, "in the last day"], [604800, "in the last 7 days"],
  [1209600, "in the last 14 days"], [2592000, "in the last 30 days"], [7776000, "in the last 90 days"],
];
const LISTS = new Set(["in", "not_in"]);
let lists = 0;

/** The tree with every level as {kind: all|any, not, parts} or a leaf. */
function opened(tree) {
  if (tree?.not) return { ...asGroup(opened(tree.not)), not: true };
  for (const kind of ["all", "any"]) {
    if (Array.isArray(tree?.[kind])) return { kind, not: false, parts: tree[kind].map(opened) };
  }
  return tree;
}

function asGroup(node) {
  return node.parts ? node : { kind: "all", not: false, parts: [node] };
}

function closed(node) {
  if (!node.parts) return node;
  const tree = { [node.kind]: node.parts.map(closed) };
  return node.not ? { not: tree } : tree;
}

/** Texts become what they look like: 12 is a number, true and false are yes and no. */
function typed(text) {
  const trimmed = text.trim();
  if (trimmed === "true" || trimmed === "false") return trimmed === "true";
  return trimmed !== "" && !Number.isNaN(Number(trimmed)) && !/^0\d/.test(trimmed) ? Number(trimmed) : trimmed;
}

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const isEmpty = !value || Object.keys(value).length === 0;
  const root = isEmpty ? { kind: "all", not: false, parts: [] } : asGroup(opened(value));
  const list = (names) => {
    const id = `known-${(lists += 1)}`;
    element.append(h("datalist", { id }, (names ?? []).map((name) => h("option", { value: name }))));
    return id;
  };
  const known = { attributes: list(options.attributes), events: list(options.events), tags: list(options.tags) };
  const box = h("div", {});
  element.append(box);

  function changed() {
    save(root.parts.length ? closed(root) : {});
  }

  function redraw() {
    changed();
    draw();
  }

  function draw() {
    box.replaceChildren(group(root, null));
  }

  function group(node, remove) {
    const rows = node.parts.map((part, at) => {
      const drop = () => { node.parts.splice(at, 1); redraw(); };
      return h("div", { class: "nc-condition" },
        at ? h("span", { class: "nc-joint" }, node.kind === "all" ? "and" : "or") : null,
        part.parts ? group(part, drop) : leaf(node, at, part, drop));
    });
    return h("div", { class: remove ? "nc-group" : "nc-group nc-root" },
      node.parts.length > 1 || remove
        ? h("div", { class: "nc-row nc-group-head" },
            select([["all", "all of these"], ["any", "any of these"]], node.kind,
              (kind) => { node.kind = kind; redraw(); }, { "aria-label": "all or any" }),
            h("label", { class: "nc-not" },
              h("input", { type: "checkbox", checked: node.not, onchange: (event) => { node.not = event.target.checked; redraw(); } }),
              "turn around: none of this"),
            remove ? h("button", { type: "button", class: "nc-remove", "aria-label": "Remove this group", onclick: remove }, "×") : null)
        : null,
      node.parts.length || remove ? null : h("p", { class: "nc-faint" }, "Everybody. Add a condition to choose."),
      rows,
      h("div", { class: "nc-row" },
        h("button", { type: "button", class: "nc-add", onclick: () => { node.parts.push(FRESH.attribute()); redraw(); } }, "+ Add a condition"),
        h("button", {
          type: "button", class: "nc-add",
          onclick: () => { node.parts.push({ kind: node.kind === "all" ? "any" : "all", not: false, parts: [FRESH.attribute()] }); redraw(); },
        }, "+ Add a group")));
  }

  function leaf(node, at, part, drop) {
    const kind = Object.keys(KINDS).find((name) => name in part) ?? "attribute";
    return h("div", { class: "nc-row nc-leaf" },
      select(Object.entries(KINDS), kind, (next) => { node.parts[at] = FRESH[next](options); redraw(); }, { "aria-label": "about what" }),
      LEAVES[kind](part),
      h("button", { type: "button", class: "nc-remove", "aria-label": "Remove this condition", onclick: drop }, "×"));
  }

  function text(shown, set, properties) {
    return h("input", {
      class: "nc-input", value: shown ?? "", size: 14, ...properties,
      onchange: (event) => { set(event.target.value); changed(); },
    });
  }

  function number(shown, set, label) {
    return h("input", {
      type: "number", step: "any", class: "nc-input nc-number", value: shown ?? 0, "aria-label": label,
      onchange: (event) => { set(Number(event.target.value) || 0); changed(); },
    });
  }

  /** A list of texts, with commas between. */
  function texts(shown, set, properties) {
    const joined = (Array.isArray(shown) ? shown : [shown]).filter((one) => one !== "" && one !== undefined).join(", ");
    return text(joined, (value) => set(value.split(",").map((one) => one.trim()).filter(Boolean)), properties);
  }

  function negatable(part) {
    const not = ["ne", "not_in"].includes(part.op);
    return select([["in", "is"], ["not_in", "is not"]], not ? "not_in" : "in", (op) => { part.op = op; changed(); }, { "aria-label": "is or is not" });
  }

  function setOp(part, op) {
    part.op = op;
    if (op === "exists" || op === "missing") delete part.value;
    else if (LISTS.has(op)) part.value = Array.isArray(part.value) ? part.value : [part.value ?? ""].filter((one) => one !== "");
    else part.value = Array.isArray(part.value) ? (part.value[0] ?? "") : (part.value ?? "");
    redraw();
  }

  function within(part) {
    const shown = WITHIN.some(([s]) => s === part.within_s) || !part.within_s
      ? WITHIN : [...WITHIN, [part.within_s, `in the last ${part.within_s} s`]];
    return select(shown, part.within_s ?? "", (next) => {
      if (next) part.within_s = Number(next);
      else delete part.within_s;
      changed();
    }, { "aria-label": "since when" });
  }

  /** How many, how long ago, how long or how much: spans are entered in days or minutes. */
  function figure(part, measures) {
    const measure = part.measure ?? "count";
    const scale = measure === "recency_s" ? 86400 : measure === "dwell_s" ? 60 : 1;
    const unit = { recency_s: "days ago", dwell_s: "minutes", count: "times", sum: "in all" }[measure];
    return [
      select(measures, measure, (next) => {
        part.measure = next;
        part.value = next === "recency_s" ? 86400 * 7 : next === "dwell_s" ? 600 : 1;
        if (next === "recency_s") delete part.within_s;
        if (next === "sum") part.property ??= "amount";
        else delete part.property;
        redraw();
      }, { "aria-label": "what of it" }),
      measure === "sum" ? text(part.property, (value) => { part.property = value.trim(); }, { "aria-label": "property", size: 8 }) : null,
      select(SIZES, part.op ?? "gte", (op) => { part.op = op; changed(); }, { "aria-label": "compared how" }),
      number((part.value ?? 0) / scale, (n) => { part.value = Math.round(n * scale * 1000) / 1000; }, "how many"),
      unit,
      measure === "recency_s" ? null : within(part),
    ];
  }

  /** Places by their tags, or the place where it happens. */
  function places(part, key) {
    const here = part[key] === "here";
    return [
      select([["tags", "places tagged"], ["here", "this very place"]], here ? "here" : "tags", (next) => {
        part[key] = next === "here" ? "here" : { tags: [] };
        redraw();
      }, { "aria-label": "which places" }),
      here ? null : texts(part[key].tags, (value) => { part[key].tags = value; }, { placeholder: "shop", "aria-label": "tags", list: known.tags }),
    ];
  }

  const LEAVES = {
    attribute: (part) => [
      text(part.attribute, (value) => { part.attribute = value.trim(); }, { placeholder: "name", "aria-label": "attribute", list: known.attributes }),
      select(OPS, part.op ?? "eq", (op) => setOp(part, op), { "aria-label": "compared how" }),
      ["exists", "missing"].includes(part.op)
        ? null
        : LISTS.has(part.op)
          ? texts(part.value, (value) => { part.value = value.map(typed); }, { placeholder: "one, two", "aria-label": "values" })
          : text(String(part.value ?? ""), (value) => { part.value = typed(value); }, { placeholder: "value", "aria-label": "value" }),
    ],
    platform: (part) => [
      negatable(part),
      ["ios", "android", "web"].map((name) =>
        h("label", { class: "nc-not" },
          h("input", {
            type: "checkbox", checked: [part.platform].flat().includes(name),
            onchange: (event) => {
              const chosen = new Set([part.platform].flat());
              if (event.target.checked) chosen.add(name);
              else chosen.delete(name);
              part.platform = [...chosen];
              changed();
            },
          }), { ios: "iOS", android: "Android", web: "Web" }[name])),
    ],
    locale: (part) => [negatable(part), texts(part.locale, (value) => { part.locale = value; }, { placeholder: "fr, en-GB", "aria-label": "languages" })],
    timezone: (part) => [negatable(part), texts(part.timezone, (value) => { part.timezone = value; }, { placeholder: "Europe/Paris", "aria-label": "time zones", size: 20 })],
    external_id: (part) => [negatable(part), texts(part.external_id, (value) => { part.external_id = value; }, { placeholder: "id, id", "aria-label": "ids", size: 20 })],
    app_version: (part) => [
      select(OPS.slice(0, 2).concat(SIZES.slice(1)), part.op ?? "eq", (op) => { part.op = op; changed(); }, { "aria-label": "compared how" }),
      text(part.app_version, (value) => { part.app_version = value.trim(); }, { placeholder: "2.3", "aria-label": "version", size: 8 }),
    ],
    consent: (part) => ["has agreed to", select([["marketing", "marketing"], ["location", "location"]], part.consent, (next) => { part.consent = next; changed(); }, { "aria-label": "to what" })],
    segment: (part) => [
      options.segments?.length
        ? ["belongs to", select(options.segments, part.segment, (next) => { part.segment = next; changed(); }, { "aria-label": "segment" })]
        : h("span", { class: "nc-faint" }, "There is no segment yet."),
    ],
    bucket: (part) => [
      "from", number(part.bucket[0], (n) => { part.bucket[0] = Math.round(n); }, "from"),
      "to", number(part.bucket[1], (n) => { part.bucket[1] = Math.round(n); }, "to"),
      "of", number(part.of ?? 100, (n) => { part.of = Math.round(n); }, "of"),
      "drawn by", text(part.salt, (value) => { part.salt = value.trim(); }, { "aria-label": "salt", size: 6 }),
    ],
    event: (part) => [
      text(part.event, (value) => { part.event = value.trim(); }, { placeholder: "purchase", "aria-label": "event", list: known.events }),
      figure(part, [["count", "happened"], ["sum", "sum of"], ["recency_s", "last happened"]]),
    ],
    area: (part) => [
      select([["home", "lives near"], ["usual", "usually is near"]], part.area, (next) => { part.area = next; changed(); }, { "aria-label": "which area" }),
      places(part, "places"),
    ],
    visits: (part) => [
      "to", places(part, "visits"),
      figure(part, [["count", "happened"], ["recency_s", "last happened"], ["dwell_s", "took together"]]),
    ],
  };

  draw();
}
