// Mounts every component of a page: <div data-component="caps"> is shown by ./caps.js.
for (const element of document.querySelectorAll("[data-component]")) {
  import(`./${element.dataset.component}.js`).then((module) => module.mount(element));
}
