// The charts, and what is pointed at: the same line stands out in all of them.

const { config, charts, tips } = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const alone = document.getElementById("alone");
const views = [];
let pinned = "";

// Expressions are interpreted, so that the page's policy need not allow evaluated text.
const options = {
  mode: "vega-lite", renderer: "svg", ast: true, actions: false, tooltip: false, defaultStyle: false, config,
};

function focusOn(key) {
  for (const view of views) view.signal("focus", key).runAsync();
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.classList.toggle("focus", row.dataset.key === key);
  }
}

function pin(key) {
  pinned = pinned === key ? "" : key;
  for (const button of document.querySelectorAll("button.pin")) {
    button.setAttribute("aria-pressed", String(button.closest("tr").dataset.key === pinned));
  }
  alone.hidden = pinned === "";
  alone.firstElementChild.textContent = pinned === "" ? "" : `Shown alone in the charts: ${pinned}`;
  focusOn(pinned);
}

// Line by line as text: what is shown may come from anywhere.
function showTip(lines, event) {
  tip.replaceChildren(...lines.map(([name, value]) => {
    const line = document.createElement("div");
    for (const [tag, text] of [["span", name], ["b", value]]) {
      line.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    return line;
  }));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4))}px`;
}

const dataOf = (item) => (item && item.datum) || {};

function listen(view, hasFocus) {
  view.addEventListener("mousemove", (event, item) => {
    const { key, tip: own } = dataOf(item);
    // While one is shown alone, the others are not there to be pointed at.
    const isThere = Object.hasOwn(tips, key ?? "") && (pinned === "" || pinned === key);
    const lines = own || (isThere ? tips[key] : null);
    if (lines) showTip(lines, event); else tip.hidden = true;
    if (hasFocus && pinned === "") focusOn(key ?? "");
  });
  view.addEventListener("mouseout", () => {
    tip.hidden = true;
    if (pinned === "") focusOn("");
  });
  view.addEventListener("click", (event, item) => {
    if (hasFocus && dataOf(item).key !== undefined) pin(dataOf(item).key);
  });
}

for (const chart of charts) {
  const place = document.getElementById(chart.name);
  try {
    const { view } = await vegaEmbed(place, chart.spec, options);
    const hasFocus = Boolean(chart.spec.params);
    if (hasFocus) views.push(view);
    listen(view, hasFocus);
  } catch (error) {
    // The others still matter.
    place.textContent = "This chart can't be drawn here; its values are in the tables.";
    console.error(error);
  }
}
for (const row of document.querySelectorAll("tr[data-key]")) {
  row.addEventListener("mouseenter", () => pinned === "" && focusOn(row.dataset.key));
  row.addEventListener("mouseleave", () => pinned === "" && focusOn(""));
}
for (const button of document.querySelectorAll("button.pin")) {
  button.addEventListener("click", () => pin(button.closest("tr").dataset.key));
}
alone.lastElementChild.addEventListener("click", () => pin(pinned));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && pinned !== "") pin(pinned);
});
document.documentElement.dataset.charts = "ready";
document.dispatchEvent(new Event("charts"));
