// Follows the sweep: the page is loaded anew when there is another, and looks as it did.

const badge = document.getElementById("live");
const filter = document.getElementById("filter");
const EVERY = 5000;

const pressed = () => document.querySelector("button.pin[aria-pressed=true]")?.closest("tr").dataset.key;

function look() {
  const head = document.querySelector("#grid th[aria-sort]");
  return {
    filter: filter?.value,
    hidden: [...document.querySelectorAll("input.state:not(:checked)")].map((box) => box.value),
    sorted: head && [head.textContent, head.getAttribute("aria-sort")],
    pinned: pressed(),
    scroll: scrollY,
  };
}

function lookAs(before) {
  for (const box of document.querySelectorAll("input.state")) box.checked = !before.hidden.includes(box.value);
  if (filter) {
    filter.value = before.filter;
    filter.dispatchEvent(new Event("input"));
  }
  if (before.sorted) {
    const [title, order] = before.sorted;
    const head = [...document.querySelectorAll("#grid thead th")].find((th) => th.textContent === title);
    // Either order is at most two clicks away.
    for (let i = 0; i < 2 && head && head.getAttribute("aria-sort") !== order; i += 1) head.firstElementChild.click();
  }
  const row = [...document.querySelectorAll("tr[data-key]")].find((tr) => tr.dataset.key === before.pinned);
  row?.querySelector("button.pin").click();
  scrollTo({ top: before.scroll, behavior: "instant" });
}

async function ask() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
  } catch {
    say("Not live: nobody answers any more", true);
    return;
  }
  if (!answer.ok) {
    say("Not live: it can't be read at the moment", true);
  } else if (answer.headers.get("ETag") !== `"${badge.dataset.version}"`) {
    history.replaceState(look(), "");
    location.reload();
  } else {
    say("Live", false);
  }
}

function say(words, hasEnded) {
  // What a screen reader has said once is not said again.
  if (badge.textContent !== words) badge.textContent = words;
  badge.classList.toggle("ended", hasEnded);
}

function start() {
  if (history.state) lookAs(history.state);
  // Once: who loads the page by hand wants it as it is.
  history.replaceState(null, "");
  setInterval(ask, EVERY);
  document.addEventListener("visibilitychange", ask);
}

if (document.documentElement.dataset.charts === "ready") start();
else document.addEventListener("charts", start);
