// Sorting and filtering of the table, and copying of commands.

const grid = document.getElementById("grid");

function sortBy(head) {
  const column = [...head.parentNode.children].indexOf(head);
  const descending = head.getAttribute("aria-sort") === "ascending"
    // Of numbers, the greatest are asked for first.
    || (!head.hasAttribute("aria-sort") && head.classList.contains("number"));
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const numeric = head.classList.contains("number");
  const value = (row) => row.children[column].dataset.sort;
  const compare = (a, b) => {
    // What has no value comes last either way.
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return descending ? -order : order;
  };
  const rows = [...grid.tBodies[0].rows];
  rows.sort((a, b) => compare(value(a), value(b)));
  grid.tBodies[0].append(...rows);
}

function filterRows() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const states = [...document.querySelectorAll("input.state:checked")].map((box) => box.value);
  let shown = 0;
  for (const row of grid.tBodies[0].rows) {
    // By how words begin: "128" is a batch size, and not somewhere in "1.1289".
    const texts = [...row.cells].flatMap((cell) => cell.textContent.toLowerCase().split(/\s+/));
    const has = (word) => texts.some((text) => text.startsWith(word));
    row.hidden = !(states.includes(row.dataset.state) && words.every(has));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${grid.tBodies[0].rows.length}`;
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Not every browser lets a local file write to the clipboard: then the text is marked.
    getSelection().selectAllChildren(source);
    if (!document.execCommand("copy")) {
      button.textContent = "Selected";
      return;
    }
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

if (grid) {
  for (const button of grid.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
}
if (document.getElementById("filter")) {
  document.getElementById("filter").addEventListener("input", filterRows);
  for (const box of document.querySelectorAll("input.state")) box.addEventListener("change", filterRows);
}
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => copy(button));
}
