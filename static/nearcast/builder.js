// The campaign builder: shows what fits the trigger, puts variables in, keeps the preview true.
import { calm, h } from "./dom.js";
import "./components.js";

const options = JSON.parse(document.getElementById("builder-options").textContent);
const form = document.getElementById("campaign-form");
const VARIABLES = [
  ["place.name", "the place's name"], ["device.attributes.first_name", "an attribute of the person"],
  ["brand.name", "the brand's name"], ["moment.distance_m", "metres to the place"], ["moment.dwell_s", "seconds they stayed"],
  ["coupon.code", "a coupon's code; choose the pool below"],
];

// A draft that was made on the way to being published is itself from now on, not a new one.
if (form.getAttribute("action")) history.replaceState(history.state, "", form.action);

function fitTrigger() {
  const on = form.querySelector("[name=on]:checked")?.value ?? "entered";
  for (const part of form.querySelectorAll("[data-when]")) {
    part.hidden = !part.dataset.when.split(" ").includes(on);
  }
}
for (const radio of form.querySelectorAll("[name=on]")) radio.addEventListener("change", fitTrigger);
fitTrigger();

const goal = form.querySelector("[name=goal_0]");
function fitGoal() {
  for (const part of form.querySelectorAll("[data-goal]")) {
    part.hidden = !part.dataset.goal.split(" ").includes(goal.value);
  }
}
goal?.addEventListener("change", fitGoal);
if (goal) fitGoal();

const takers = "[name=title], [name=body], [name=deep_link], [name=image_url], [data-takes]";
let taker = form.querySelector("[name=body]");
form.addEventListener("focusin", (event) => {
  if (event.target.matches(takers)) taker = event.target;
});

function putIn(name) {
  const field = taker.isConnected && taker.offsetParent ? taker : form.querySelector("[name=body]");
  const text = `{{ ${name} }}`;
  field.setRangeText(text, field.selectionStart ?? field.value.length, field.selectionEnd ?? field.value.length, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
}

const suggested = JSON.parse(
  form.querySelector('[data-field=audience] script[type="application/json"]')?.textContent ?? "{}",
);
document.getElementById("known-events").replaceChildren(
  ...(suggested.events ?? []).map((name) => h("option", { value: name })),
);
const attributes = suggested.attributes ?? [];
const own = attributes.slice(0, 6).map((name) => [`device.attributes.${name}`, `the person's ${name}`]);
document.getElementById("variables").replaceChildren(
  h("span", { class: "nc-faint" }, "Put in:"),
  ...[...VARIABLES.filter(([name]) => !own.length || !name.startsWith("device.")), ...own].map(([name, title]) =>
    h("button", { type: "button", class: "nc-chip", title, onclick: () => putIn(name) }, name.replace("device.attributes.", ""))),
);

const sentence = document.getElementById("sentence");
const phones = document.getElementById("phones");
const checklist = document.getElementById("checklist");
let asked = 0;

async function preview() {
  const mine = (asked += 1);
  const answer = await fetch(options.preview, { method: "POST", body: new FormData(form) });
  document.getElementById("signed-out").hidden = !answer.redirected; // to the log-in page
  if (!answer.ok || answer.redirected || mine !== asked) return;
  const said = await answer.json();
  if (said.sentence) sentence.textContent = said.sentence;
  phones.innerHTML = said.phones;
  document.getElementById("audience-size").textContent = said.audience;
  checklist.replaceChildren(
    ...said.checklist.map((one) => h("li", { class: one.level }, h("a", { href: "#", "data-goto": one.field }, one.text))),
  );
  if (!said.checklist.some((one) => one.level === "error")) checklist.prepend(h("li", { class: "done" }, "Everything is there: it can go live."));
}

document.getElementById("send-test")?.addEventListener("click", async (event) => {
  const told = document.getElementById("test-said");
  const button = event.currentTarget;
  if (!form.elements.preview_device.value.trim()) {
    told.textContent = "Say to which device: its id or its external id.";
    form.elements.preview_device.focus();
    return;
  }
  button.disabled = true;
  try {
    const answer = await fetch(options.test, { method: "POST", body: new FormData(form) });
    const said = await answer.json();
    told.replaceChildren(said.url ? h("a", { href: said.url, class: "nc-link" }, "Sent as a test: see what becomes of it.") : said.problem);
  } catch {
    told.textContent = "The server did not answer; nothing is known to have been sent.";
  }
  button.disabled = false;
});

if (options.fresh) preview();
if (!options.readonly) {
  const later = calm(350, preview);
  for (const kind of ["input", "change"]) form.addEventListener(kind, later);
}

checklist.addEventListener("click", (event) => {
  const name = event.target.dataset?.goto;
  if (name === undefined) return;
  event.preventDefault();
  const field = form.querySelector(`[data-field="${name}"]`);
  field?.closest("details")?.setAttribute("open", "");
  field?.scrollIntoView({ behavior: "smooth", block: "center" });
  field?.querySelector("input:not([type=hidden]), textarea, select, button")?.focus({ preventScroll: true });
});

document.querySelector("#campaign-form .nc-field.errors")?.scrollIntoView({ block: "center" });
if (options.readonly) {
  for (const control of form.querySelectorAll("button, select, input, textarea")) control.disabled = true;
}
