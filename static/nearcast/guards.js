// Rules of relevance as rows. Saves the JSON list of campaigns.guards; [] refuses nothing.
import { h, say, select, stateOf, times } from "./dom.js";
import { pairs } from "./pairs.js";

const KINDS = [["attribute", "not known as"], ["event", "they did"], ["offer", "offered before:"]];
const FRESH = {
  attribute: () => ({ attribute: "", op: "eq", value: "" }),
  event: () => ({ event: "", within_s: 604800 }),
  offer: () => ({ offer: { label: "" }, within_s: 3600 }),
};
const OPS = [
  ["eq", "is"], ["ne", "is not"], ["gt", "is over"], ["gte", "is at least"], ["lt", "is under"], ["lte", "is at most"],
  ["in", "is one of"], ["not_in", "is none of"], ["contains", "contains"], ["starts_with", "starts with"],
  ["missing", "is not known"],
];
const LISTS = ["in", "not_in"];
const MOST_TIMES = 1000;
const SPANS = [
  ["", "ever"], [3600, "in the last hour"], [86400, "in the last day"], [604800, "in the last 7 days"],
  [2592000, "in the last 30 days"], [7776000, "in the last 90 days"], [31536000, "in the last year"],
];
const AGES = [["", "of any age"], ...SPANS.slice(1).map(([s, text]) => [s, text.replace("in the last", "told in the last")])];
const OFFERS = [["label", "the kind"], ["group", "the group"], ["campaign", "the campaign no."]];
let lists = 0;

/** Texts become what they look like: 12 is a number, true and false are yes and no. */
function typed(text) {
  const trimmed = text.trim();
  if (trimmed === "true" || trimmed === "false") return trimmed === "true";
  return trimmed !== "" && !Number.isNaN(Number(trimmed)) && !/^0\d/.test(trimmed) ? Number(trimmed) : trimmed;
}

export function mount(element) {
  const { value, options, save } = stateOf(element);
  const rows = Array.isArray(value) ? value : [];
  const list = (names) => {
    const id = `guard-names-${(lists += 1)}`;
    element.append(h("datalist", { id }, (names ?? []).map((name) => h("option", { value: name }))));
    return id;
  };
  const known = {
    attributes: list(options.attributes),
    events: list(options.events),
    paths: list(["place.name", "place.external_id", "place.tags", "place.metadata.city", "offer.city"]),
    things: list(["offer.sku", "place.name", "place.external_id", "place.metadata.city", "event.sku"]),
  };
  const box = h("div", { class: "nc-rows" });
  const more = h("button", { type: "button", class: "nc-add", onclick: () => { rows.push(FRESH.attribute()); redraw(); } }, "+ Add a rule");
  element.append(box, more);

  function changed() {
    save(rows);
  }

  function redraw() {
    changed();
    draw();
  }

  function draw() {
    box.replaceChildren(...rows.map(row));
    more.hidden = Boolean(options.single) && rows.length > 0;
  }

  function text(shown, set, properties) {
    return h("input", {
      class: "nc-input", value: shown ?? "", size: 14, ...properties,
      onchange: (event) => { set(event.target.value.trim()); changed(); },
    });
  }

  function span(rule, key, pairs, label) {
    const seconds = rule[key];
    const shown = !seconds || pairs.some(([s]) => s === seconds) ? pairs : [...pairs, [seconds, `within ${seconds} s`]];
    return select(shown, seconds ?? "", (next) => {
      if (next) rule[key] = Number(next);
      else delete rule[key];
      changed();
    }, { "aria-label": label });
  }

  function put(rule, name, said) {
    say(rule, name, said);
    changed();
  }

  /** Which of the events are meant: properties by a value, and by where else the value stands. */
  function narrowed(rule) {
    const where = h("div", { class: "nc-narrow-by" });
    pairs(where, rule.where, (next) => put(rule, "where", next), {
      add: "+ with a property", name: "property", said: "value", typed,
    });
    const same = h("div", { class: "nc-narrow-by" });
    pairs(same, rule.same, (next) => put(rule, "same", next), {
      add: "+ of the same thing", between: "is the same as", name: "property", said: "offer.sku", list: known.things,
    });
    return h("div", { class: "nc-narrow" }, where, same);
  }

  function row(rule, at) {
    const kind = KINDS.map(([name]) => name).find((name) => name in rule) ?? "attribute";
    return h("div", { class: "nc-row nc-leaf", role: "group", "aria-label": `Rule ${at + 1}` },
      select(KINDS, kind, (next) => { rows[at] = FRESH[next](); redraw(); }, { "aria-label": "what is known" }),
      PARTS[kind](rule),
      options.single ? null : text(rule.name, (next) => put(rule, "name", next), {
        placeholder: "called…", size: 12, maxLength: 80, "aria-label": "what the rule is called",
        title: "A name for your colleagues: it stands on each decision that the rule refused.",
      }),
      h("button", { type: "button", class: "nc-remove", "aria-label": "Remove this rule", onclick: () => { rows.splice(at, 1); redraw(); } }, "×"));
  }

  function supposed(rule) {
    if (rule.op === "missing") return null;
    const from = "against" in rule;
    return [
      select([["value", "exactly"], ["against", "the same as"]], from ? "against" : "value", (next) => {
        delete rule.value;
        delete rule.against;
        rule[next] = next === "against" ? "place.metadata.city" : "";
        if (next === "against" && rule.op !== "ne") rule.op = "eq";
        else if (LISTS.includes(rule.op)) rule.value = [""];
        redraw();
      }, { "aria-label": "compared with" }),
      from
        ? text(rule.against, (next) => { rule.against = next; }, { list: known.paths, size: 18, "aria-label": "where from" })
        : text([rule.value].flat().join(", "), (next) => {
            rule.value = Array.isArray(rule.value) ? next.split(",").map(typed) : typed(next);
          }, { placeholder: "value", "aria-label": "value" }),
    ];
  }

  const PARTS = {
    attribute: (rule) => [
      text(rule.attribute, (next) => { rule.attribute = next; }, { placeholder: "city", "aria-label": "attribute", list: known.attributes }),
      select(OPS.some(([op]) => op === (rule.op ?? "eq")) ? OPS : [...OPS, [rule.op, rule.op]], rule.op ?? "eq", (next) => {
        rule.op = next;
        if (next === "missing") { delete rule.value; delete rule.against; }
        else if (!("against" in rule)) {
          const values = [rule.value ?? ""].flat();
          rule.value = LISTS.includes(next) ? values : values[0];
        }
        redraw();
      }, { "aria-label": "compared how" }),
      supposed(rule),
      span(rule, "max_age_s", AGES, "how fresh"),
      text(rule.source, (next) => { if (next) rule.source = next; else delete rule.source; }, { placeholder: "by anybody", "aria-label": "told by", size: 9 }),
    ],
    event: (rule) => [
      text(rule.event, (next) => { rule.event = next; }, { placeholder: "purchase", "aria-label": "event", list: known.events }),
      times(rule.times, MOST_TIMES, "times or more", (next) => put(rule, "times", next)),
      span(rule, "within_s", SPANS, "since when"),
      narrowed(rule),
    ],
    offer: (rule) => {
      const by = OFFERS.map(([name]) => name).find((name) => name in rule.offer) ?? "label";
      return [
        select(OFFERS, by, (next) => { rule.offer = { [next]: "" }; redraw(); }, { "aria-label": "which offers" }),
        text(String(rule.offer[by] ?? ""), (next) => { rule.offer[by] = by === "campaign" ? Number(next) : next; }, { "aria-label": "named" }),
        span(rule, "within_s", SPANS, "since when"),
      ];
    },
  };

  draw();
}
