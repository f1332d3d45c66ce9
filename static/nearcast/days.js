// The days of the week as buttons; with none chosen it is every day.
import { h } from "./dom.js";

export const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
export const SHORT = { mon: "Mo", tue: "Tu", wed: "We", thu: "Th", fri: "Fr", sat: "Sa", sun: "Su" };

/** mon, Monday and 1 are Monday. */
export function short(day) {
  return typeof day === "number" ? DAYS[day - 1] : String(day).toLowerCase().slice(0, 3);
}

/** One button a day; `chose` gets the days as they are after a press. */
export function dayButtons(days, chose) {
  return h("span", { class: "nc-days" }, DAYS.map((day) => {
    const isOn = !days.length || days.includes(day);
    return h("button", {
      type: "button", class: `nc-dayname${isOn ? " on" : ""}`, "aria-pressed": String(isOn), "aria-label": day,
      onclick: () => {
        const before = days.length ? days : DAYS;
        chose(DAYS.filter((one) => before.includes(one) !== (one === day)));
      },
    }, SHORT[day]);
  }));
}
