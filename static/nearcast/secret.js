// Copies the secret, and leaves the address of the list in the bar: a reload must not make another.
const card = document.getElementById("secret-card");
const button = document.getElementById("copy");
const secret = document.getElementById("secret");

history.replaceState(null, "", card.dataset.list);

button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(secret.textContent);
    button.textContent = "Copied";
  } catch {
    // Without a secure context there is no clipboard: select it for Ctrl-C.
    getSelection().selectAllChildren(secret);
    button.textContent = "Press Ctrl-C";
  }
});
