// What each way of teaching costs: a row for each, over all of its trials.

function drawCosts() {
  const table = by("costs"),
    head = make("tr"),
    body = make("tbody");
  by("costs-section").hidden = !whole.costTable.rows.length;
  head.append(
    ...whole.costTable.columns.map(([name, number]) =>
      make("th", name, { scope: "col", class: number ? "number" : "" }),
    ),
  );
  for (const cells of whole.costTable.rows) {
    const row = make("tr");
    cells.forEach(([text, small], at) => {
      const cell = make("td", text, { class: whole.costTable.columns[at][1] ? "number" : "" });
      if (small) cell.append(make("small", small));
      row.append(cell);
    });
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  table.replaceChildren(top, body);
}
