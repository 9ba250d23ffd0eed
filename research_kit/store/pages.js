// Keeps an open page up to date while its session runs, shows times in the reader's zone, and answers to keys.
// What changed is put in place; what the reader has opened, selected and scrolled to stays as it is.
const INTERVAL_MS = 2000;
// A page that takes long to make is asked for less often.
const PATIENCE = 10;
const LINES = "summary, td.main > a, .turn > header a";
let known = "";

function tell(state) {
  const place = document.querySelector(".live");
  if (!place || place.dataset.state === state) return;
  place.dataset.state = state;
  place.textContent = state === "away" ? "the store is away" : state;
}

function localize(root) {
  for (const place of root.querySelectorAll("time")) {
    const moment = new Date(place.dateTime);
    place.title = moment.toISOString();
    place.textContent = moment.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  }
}

function take(page) {
  const now = document.querySelector("main");
  const next = new DOMParser().parseFromString(page, "text/html").querySelector("main");
  if (!next) return;
  localize(next);
  if (next.innerHTML === now.innerHTML) return;
  // New observations come at the end, so the n-th place is the same one as before.
  const places = [...next.querySelectorAll("details")];
  const focused = lines(now).indexOf(document.activeElement);
  [...now.querySelectorAll("details")].forEach((place, n) => {
    if (place.open && places[n]) places[n].open = true;
  });
  now.replaceWith(next);
  if (focused >= 0) lines(next)[focused]?.focus({ preventScroll: true });
}

async function look() {
  const begin = performance.now();
  if (!document.hidden && !document.activeElement?.closest("form") && !String(getSelection())) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      const page = answer.ok ? await answer.text() : known;
      if (page !== known) take(page);
      known = page;
      tell(answer.ok ? "live" : "away");
    } catch {
      // It is asked again.
      tell("away");
    }
  }
  setTimeout(look, Math.max(INTERVAL_MS, PATIENCE * (performance.now() - begin)));
}

function lines(root) {
  return [...root.querySelectorAll(LINES)].filter((line) => line.checkVisibility?.() ?? true);
}

function move(step) {
  const all = lines(document);
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

function openAll() {
  const all = [...document.querySelectorAll(".observation, .step")];
  const isOpening = all.some((place) => !place.open);
  for (const place of all) place.open = isOpening;
}

const ACTIONS = {
  j: () => move(1),
  k: () => move(-1),
  e: openAll,
  "/": () => document.querySelector("input[type=search]")?.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("click", async (event) => {
  const place = event.target.closest(".copy");
  if (!place) return;
  await navigator.clipboard?.writeText(place.dataset.copy);
  place.classList.add("done");
  setTimeout(() => place.classList.remove("done"), 1500);
});

localize(document);
setTimeout(look, INTERVAL_MS);
