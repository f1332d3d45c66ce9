// On every page of the admin: a form is sent once, and what the theme leaves unnamed gets a name and
// can be reached by keyboard. Loaded without `type=module`, so all of it is in one function.
(() => {
  "use strict";

  // A second click, or a second Enter, would make a second campaign. The lock ends with the page,
  // when somebody comes back to it, and after a while where the answer was a file.
  const LOCKED_MS = 15_000;
  document.addEventListener("submit", (event) => {
    const form = event.target;
    // A list's actions may answer with a file, and asked for twice they do the same.
    if (event.defaultPrevented || form.method !== "post" || form.id === "changelist-form") return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
    setTimeout(() => unlock(form), LOCKED_MS);
  });
  const unlock = (form) => {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  };
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach(unlock));

  // Leaving with something typed or drawn asks first; after an error nothing of it is saved either.
  // What a preview is shown for is not saved with the form: such fields are named preview_….
  function guard() {
    const form = document.querySelector("form[data-unsaved]:not(.nc-readonly)");
    if (!form) return;
    let unsaved = form.dataset.unsaved === "yes";
    const typed = (event) => {
      if (!event.target.name?.startsWith("preview_")) unsaved = true;
    };
    for (const kind of ["input", "change"]) form.addEventListener(kind, typed);
    form.addEventListener("submit", () => { unsaved = false; });
    addEventListener("beforeunload", (event) => {
      if (unsaved) event.preventDefault();
    });
  }

  const NAMES = [
    ["#searchbar", (one) => one.placeholder || "Search"],
    ["#searchbar-submit", () => "Search"],
    ['a[href="/admin/"]', () => "Home"],
  ];
  const spoken = (one) => {
    const copy = one.cloneNode(true);
    copy.querySelectorAll(".material-symbols-outlined").forEach((icon) => icon.remove());
    return copy.textContent.trim();
  };
  // The theme's icons are ligatures: without this they are read aloud as "dock_to_right".
  const ICONS = { dock_to_right: "Menu", close: "Close", filter_list: "Filters", tune: "Filters" };

  function name() {
    for (const [selector, said] of NAMES) {
      for (const one of document.querySelectorAll(selector)) {
        if (!one.hasAttribute("aria-label") && !spoken(one)) one.setAttribute("aria-label", said(one));
      }
    }
    const pressed = "[x-on\\:click]:not(a, button, input, select, textarea, label)";
    for (const one of document.querySelectorAll(pressed)) {
      if (one.querySelector("a, button, input, select, textarea") || one.hasAttribute("role")) continue;
      const icon = one.textContent.trim();
      one.setAttribute("role", "button");
      one.tabIndex = 0;
      if (!spoken(one) || ICONS[icon]) one.setAttribute("aria-label", ICONS[icon] || icon.replaceAll("_", " "));
      one.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        one.click();
      });
    }
    document.querySelectorAll(".material-symbols-outlined:not([role])").forEach((icon) => icon.setAttribute("aria-hidden", "true"));
  }
  document.addEventListener("DOMContentLoaded", () => {
    guard();
    name();
  });
})();
