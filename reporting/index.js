"use strict";
// Rows of one status, and of those the ones that hold the searched text.
const rows = [...document.querySelectorAll("tbody tr")];
const search = document.getElementById("search");
const buttons = [...document.querySelectorAll("#filters button")];
let chosen = decodeURIComponent(location.hash.slice(1));
function filter() {
  const text = search.value.toLowerCase();
  for (const row of rows) {
    const fits = !chosen || row.dataset.status === chosen;
    row.hidden = !fits || !row.textContent.toLowerCase().includes(text);
  }
  for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.status === chosen);
}
for (const button of buttons) button.addEventListener("click", () => {
  chosen = button.dataset.status;
  history.replaceState(null, "", "#" + encodeURIComponent(chosen));
  filter();
});
search.addEventListener("input", filter);
filter();
