"use strict"
// one player at a time
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause()
  }
}, true)

// a filter hides what does not have all of its words
for (const filter of document.querySelectorAll("[data-filter]")) {
  const shown = filter.closest("section").querySelectorAll("[data-words], .card, tbody tr")
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean)
    for (const each of shown) {
      const said = (each.dataset.words ?? each.textContent).toLowerCase()
      each.hidden = !words.every((word) => said.includes(word))
    }
  })
}

// a click on a column's head sorts by it, a second one the other way round
const key = (row, column) => {
  const said = row.cells[column].textContent.trim()
  const number = parseFloat(said.replace("−", "-"))
  return { said, number: Number.isNaN(number) ? Infinity : number }
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const [column, head] of [...table.querySelectorAll("th")].entries()) {
    head.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1
      for (const other of table.querySelectorAll("th")) other.ariaSort = null
      head.ariaSort = sign === 1 ? "ascending" : "descending"
      const numeric = head.classList.contains("number")
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row])
      rows.sort(([a], [b]) => sign * (numeric ? a.number - b.number || 0 : a.said.localeCompare(b.said)))
      table.tBodies[0].append(...rows.map(([, row]) => row))
    })
  }
}
