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
// All trials as a table that sorts.

const columns = [
  { label: "", text: (trial) => (trial.front ? "★" : ""), value: (trial) => (trial.front ? 1 : 0) },
  ...(varying.length ? varying : data.axes.filter((axis) => axis.values[0] !== "none")).map((axis) => ({
    label: axis.label,
    text: (trial) => axisValue(trial, axis),
    value: (trial) => trial.axes[axisIndex[axis.name]],
    up: true,
  })),
  ...data.measures.map((name, place) => ({
    label: data.labels[name],
    number: true,
    value: (trial) => measure(trial, place),
    text: (trial) => points(measure(trial, place)),
    small: (trial) => {
      const ends = interval(trial, place);
      return ends && `${points(ends[0])} … ${points(ends[1])}`;
    },
  })),
  ...data.costs.map((name, place) => ({
    label: data.labels[name],
    number: true,
    value: (trial) => trial.costs[place],
    text: (trial) => trial.costWords[place],
  })),
  { label: "state", text: (trial) => trial.reached, value: (trial) => trial.reached, up: true },
];

function sorted(trials) {
  if (state.sort === null) return trials;
  const sign = state.down ? -1 : 1,
    value = columns[state.sort].value;
  return [...trials].sort((a, b) => {
    // what is not known stays at the end
    const [left, right] = [value(a), value(b)];
    if (left === null || right === null) return (left === null) - (right === null);
    return sign * (left < right ? -1 : left > right ? 1 : 0);
  });
}

let tableFrom = 0; // of a long table, the first row that is shown

function drawTable() {
  const table = by("trials"),
    head = make("tr"),
    body = make("tbody");
  columns.forEach((column, place) => {
    const cell = make("th", null, { scope: "col", class: column.number ? "number" : "" });
    if (place === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    const button = make("button", column.label || "★", {
      type: "button",
      title: `sort by ${column.label || "Pareto front"}`,
    });
    button.onclick = () => {
      state.down = state.sort === place ? !state.down : !column.up;
      state.sort = place;
      tableFrom = 0;
      drawTable();
    };
    cell.append(button);
    head.append(cell);
  });
  const trials = sorted(visible());
  if (tableFrom >= trials.length) tableFrom = 0;
  pager(by("trials-pager"), tableFrom, MANY, trials.length, (to) => {
    tableFrom = to;
    drawTable();
  });
  for (const trial of trials.slice(tableFrom, tableFrom + MANY)) {
    const row = make("tr", null, {
      class: `${trial.state} ${trial === data.trials[state.trial] ? "chosen" : ""}`,
      title: trial.error || trial.stopped ? `${trial.name}: ${trial.error || trial.stopped}` : trial.name,
      tabindex: 0,
    });
    for (const column of columns) {
      const cell = make("td", column.text(trial), { class: column.number ? "number" : "" });
      const small = column.small?.(trial);
      if (small) cell.append(make("small", small));
      row.append(cell);
    }
    row.dataset.place = trial.place;
    row.onclick = () => choose(trial.place);
    row.onkeydown = (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        row.onclick();
      }
    };
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  table.replaceChildren(top, body);
}
// Chips that show and hide trials by the values of an axis.

function icon(symbol, colour) {
  const shapes = {
    circle: "M7 2a5 5 0 1 0 .01 0z",
    square: "M2.5 2.5h9v9h-9z",
    diamond: "M7 1l6 6-6 6-6-6z",
    "triangle-up": "M7 2l6 10H1z",
    "triangle-down": "M7 12L1 2h12z",
    star: "M7 1l1.8 4.1 4.4.4-3.3 3 1 4.4L7 10.600l-3.900 2.300 1-4.400-3.300-3 4.400-.4z",
    cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4z",
    x: "M3.500 1L7 4.500 10.500 1 13 3.500 9.500 7 13 10.500 10.500 13 7 9.500 3.500 13 1 10.500 4.500 7 1 3.500z",
    hexagon: "M4 2h6l3 5-3 5H4L1 7z",
    pentagon: "M7 1l6 4.500-2.300 7H3.300L1 5.500z",
    "triangle-right": "M2 1l10 6-10 6z",
    "triangle-left": "M12 1L2 7l10 6z",
  };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"),
    path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of Object.entries({ width: 13, height: 13, viewBox: "0 0 14 14", "aria-hidden": "true" }))
    svg.setAttribute(name, value);
  path.setAttribute("d", shapes[symbol] || shapes.circle);
  path.setAttribute("fill", colour);
  svg.append(path);
  return svg;
}

function drawFilters() {
  by("filters").replaceChildren();
  for (const axis of varying) {
    const row = make("div", null, { class: "filter", role: "group", "aria-label": axis.label }),
      place = axisIndex[axis.name];
    row.append(make("span", axis.label));
    axis.values.forEach((value, index) => {
      const chip = make("button", null, {
        type: "button",
        class: "chip",
        "aria-pressed": String(!off[place].has(index)),
        title: "show or hide; double-click, or Shift and Enter, shows this one alone",
      });
      if (axis === markerAxis) chip.append(icon(axis.symbols[index], look().soft));
      if (axis === colourAxis) chip.append(icon("circle", axis.colours[night() ? 1 : 0][index]));
      chip.append(value);
      const apply = () => {
        [...row.querySelectorAll(".chip")].forEach((other, at) => {
          other.setAttribute("aria-pressed", String(!off[place].has(at)));
        });
        tableFrom = 0;
        drawTable();
        drawSoon(FILTERED);
      };
      const alone = () => {
        off[place] = new Set(axis.values.map((_, at) => at).filter((at) => at !== index));
        apply();
      };
      chip.onclick = (event) => {
        if (event.shiftKey) return alone();
        off[place].has(index) ? off[place].delete(index) : off[place].add(index);
        apply();
      };
      chip.ondblclick = alone;
      row.append(chip);
    });
    by("filters").append(row);
  }
}
