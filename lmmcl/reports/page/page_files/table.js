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
      drawTable();
    };
    cell.append(button);
    head.append(cell);
  });
  for (const trial of sorted(visible())) {
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
