"use strict";
// Sorts the table by the column whose heading is pressed; cells carry their sort key in data-v.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].textContent;
    const rows = [...body.rows].map(row => [key(row), row]);
    const numeric = head.classList.contains("n");
    rows.sort(([a], [b]) => numeric ? (a === "" ? -Infinity : +a) - (b === "" ? -Infinity : +b) || 0 : a.localeCompare(b));
    if (down) rows.reverse();
    body.append(...rows.map(([, row]) => row));
  });
}
