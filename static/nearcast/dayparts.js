// Hours as rows of days and times, with the week drawn beside. Saves [{days, from, to}].
import { DAYS, SHORT, dayButtons, short } from "./days.js";
import { h, stateOf } from "./dom.js";

export function mount(element) {
  const { value, save } = stateOf(element);
  const rows = (Array.isArray(value) ? value : []).map((row) => ({
    days: (row.days ?? []).map(short), from: row.from ?? "00:00", to: row.to ?? "24:00",
  }));
  const list = h("div", { class: "nc-rows" });
  const week = h("div", { class: "nc-week", "aria-hidden": "true" });
  element.append(
    list,
    h("button", {
      type: "button", class: "nc-add",
      onclick: () => { rows.push({ days: DAYS.slice(0, 5), from: "09:00", to: "18:00" }); changed(); },
    }, "+ Add hours"),
    week,
  );

  function changed() {
    save(rows);
    draw();
  }

  function time(row, end, label) {
    // 24:00 is how a definition says "to the end of the day"; a time input shows that as 00:00.
    const shown = row[end] === "24:00" ? "00:00" : row[end].padStart(5, "0");
    return h("input", {
      type: "time", class: "nc-input nc-time", value: shown, "aria-label": label,
      onchange: (event) => {
        row[end] = end === "to" && event.target.value === "00:00" ? "24:00" : event.target.value || "00:00";
        changed();
      },
    });
  }

  function draw() {
    list.replaceChildren(...rows.map((row, at) =>
      h("div", { class: "nc-row" },
        dayButtons(row.days, (days) => { row.days = days; changed(); }),
        time(row, "from", "from"), "to", time(row, "to", "to"),
        row.from >= row.to ? h("small", { class: "nc-faint" }, "over midnight") : null,
        h("button", {
          type: "button", class: "nc-remove", "aria-label": "Remove these hours",
          onclick: () => { rows.splice(at, 1); changed(); },
        }, "×"),
      )));
    week.hidden = rows.length === 0;
    week.replaceChildren(...DAYS.map((day, index) =>
      h("div", { class: "nc-weekday" }, h("span", {}, SHORT[day]), h("div", { class: "nc-hours-bar" }, spans(index)))));
  }

  /** The open spans of a weekday, in percent; a night belongs to the day it begins on. */
  function spans(index) {
    const found = [];
    for (const row of rows) {
      const [from, to] = [minutes(row.from), minutes(row.to)];
      const holds = (day) => !row.days.length || row.days.includes(DAYS[(day + 7) % 7]);
      if (from < to) {
        if (holds(index)) found.push([from, to]);
      } else {
        if (holds(index)) found.push([from, 1440]);
        if (holds(index - 1)) found.push([0, to]);
      }
    }
    return found.map(([from, to]) =>
      h("i", { style: `left:${from / 14.4}%;width:${(to - from) / 14.4}%` }));
  }

  function minutes(clock) {
    const [hours, rest] = clock.split(":").map(Number);
    return hours * 60 + rest;
  }

  draw();
}
