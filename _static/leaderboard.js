/* Sorting and filtering of tables of class "leaderboard": no library, no network. */
(() => {
  const number = (text) => (text === "" ? NaN : Number(text));

  function sort(table, column, button) {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    const numeric = rows.every((row) => keys.get(row) === "" || !isNaN(keys.get(row)));
    rows.sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // empty cells stay at the end
      const order = numeric ? number(x) - number(y) : x.localeCompare(y);
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  }

  function filter(table, controls, words, count) {
    const text = words.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const tags = JSON.parse(row.dataset.tags);
      const wanted = Object.entries(controls).every(([k, s]) => !s.value || tags[k] === s.value);
      row.hidden = !(wanted && row.textContent.toLowerCase().includes(text));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
  }

  function prepare(box) {
    const table = box.querySelector("table");
    const rows = [...table.tBodies[0].rows].map((row) => JSON.parse(row.dataset.tags));
    const bar = document.createElement("div");
    bar.className = "leaderboard-filters";
    const labelled = (text, field) => {
      const label = document.createElement("label");
      label.append(`${text} `, field);
      bar.append(label);
    };
    const controls = {};
    Object.keys(rows[0] ?? {}).forEach((name, place) => {
      const select = (controls[name] = document.createElement("select"));
      const values = [...new Set(rows.map((tags) => tags[name]))];
      select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
      if (place === 0 && values.length) select.value = values[0];
      labelled(name, select);
    });
    const words = document.createElement("input");
    words.type = "search";
    labelled("find", words);
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    bar.append(count);
    const update = () => filter(table, controls, words, count);
    for (const field of [...Object.values(controls), words]) field.addEventListener("input", update);
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      button.title = "sort by this column";
      button.addEventListener("click", () => sort(table, column, button));
      cell.replaceChildren(button);
    });
    box.prepend(bar);
    update();
  }

  const start = () => {
    for (const box of document.querySelectorAll(".leaderboard:not([data-ready])")) {
      box.dataset.ready = "yes"; // two tables on a page load this script twice
      prepare(box);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
