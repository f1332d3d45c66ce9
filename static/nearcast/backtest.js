// A trial on the past: follows it until it is done, then shows what came of it.
const LOOK_MS = 1000;
const bar = document.getElementById("backtest-bar");

async function look() {
  try {
    const answer = await fetch(bar.dataset.url);
    if (answer.ok) {
      const found = await answer.json();
      if (!found.under_way) {
        location.reload();
        return;
      }
      const share = Math.round(found.progress * 100);
      bar.firstElementChild.style.width = `${share}%`;
      bar.setAttribute("aria-valuenow", String(share));
      document.getElementById("backtest-text").textContent = share ? `${share} %. You may close this page.` : "Waiting for a worker… You may close this page.";
      document.getElementById("backtest-overdue").hidden = !found.overdue;
    }
  } catch {
    // The server restarts; the trial goes on.
  }
  setTimeout(look, LOOK_MS);
}

if (bar) look();
