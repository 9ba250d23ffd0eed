// Keeps an open page up to date while its session runs: what changed is put in place, and what the reader has
// opened, selected and scrolled to stays as it is.
const INTERVAL_MS = 2000;

function places(root) {
  return [...root.querySelectorAll("details")];
}

function take(page) {
  const now = document.querySelector("main");
  const next = new DOMParser().parseFromString(page, "text/html").querySelector("main");
  if (!next || next.innerHTML === now.innerHTML) return;
  // New observations come at the end, so the n-th place is the same one as before.
  places(now).forEach((place, n) => {
    const same = places(next)[n];
    if (same && place.open) same.open = true;
  });
  now.replaceWith(next);
}

async function look(known) {
  if (!document.hidden && !document.activeElement?.closest("form") && !String(getSelection())) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      const page = answer.ok ? await answer.text() : known;
      if (page !== known) take(page);
      known = page;
    } catch {
      // The store is away; it is asked again.
    }
  }
  setTimeout(look, INTERVAL_MS, known);
}

setTimeout(look, INTERVAL_MS, "");
