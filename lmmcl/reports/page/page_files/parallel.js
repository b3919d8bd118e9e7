// Parallel coordinates: a line for each trial across the axes of the grid, its measures and its costs. Dragging along an axis keeps the
// trials between its ends. Drawn on a canvas, which shows a thousand lines at once.

const bands = new Map(); // for each column, the part [low, high] that is kept, from 0 (bottom) to 1
let drag = null;

const parallelColumns = () => [
  ...varying.map((axis) => ({
    label: axis.label,
    ticks: axis.values.map((text, at) => [axis.values.length > 1 ? at / (axis.values.length - 1) : 0.5, text]),
    at: (trial) => (axis.values.length > 1 ? trial.axes[axisIndex[axis.name]] / (axis.values.length - 1) : 0.5),
  })),
  ...data.measures.map((name, place) => numberColumn(data.labels[name], (trial) => measure(trial, place), points)),
  ...data.costs
    .map((name, place) =>
      numberColumn(
        data.labels[name],
        (trial) => trial.costs[place],
        null,
        (trial) => trial.costWords[place],
      ),
    )
    .filter((column) => column.spread),
];

function numberColumn(label, value, text, word) {
  let low = null,
    high = null;
  for (const trial of data.trials) {
    const known = value(trial);
    if (known === null) continue;
    if (low === null || known < value(low)) low = trial;
    if (high === null || known > value(high)) high = trial;
  }
  const spread = low === null ? 0 : value(high) - value(low);
  const shown = (trial) => (text ? text(value(trial)) : word(trial));
  return {
    label,
    spread,
    ticks:
      low === null
        ? []
        : spread
          ? [
              [0, shown(low)],
              [1, shown(high)],
            ]
          : [[0.5, shown(low)]],
    at: (trial) => (value(trial) === null ? null : spread ? (value(trial) - value(low)) / spread : 0.5),
  };
}

let columnsOfParallel = null;
const parallel = () => {
  columnsOfParallel ??= parallelColumns();
  return columnsOfParallel;
};

function parallelPlaces() {
  const canvas = by("parallel"),
    wide = canvas.clientWidth,
    high = canvas.clientHeight,
    side = 60;
  const step = (wide - 2 * side) / Math.max(1, parallel().length - 1);
  return { wide, high, x: (column) => side + column * step, y: (part) => high - 34 - part * (high - 96), step };
}

const isKept = (trial) =>
  [...bands].every(([column, [low, high]]) => {
    const at = parallel()[column].at(trial);
    return at !== null && at >= low - 1e-9 && at <= high + 1e-9;
  });

function drawParallel() {
  const canvas = by("parallel"),
    pen = canvas.getContext("2d"),
    { ink, soft, line, ground, budget: band } = look();
  by("parallel-section").hidden = data.trials.length < 2;
  if (data.trials.length < 2) return;
  const { wide, high, x, y, step } = parallelPlaces(),
    dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(wide * dense);
  canvas.height = Math.round(high * dense);
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.fillStyle = ground;
  pen.fillRect(0, 0, wide, high);
  const trials = visible().filter((trial) => trial.stages.length),
    kept = trials.filter(isKept);
  pen.lineWidth = 1;
  pen.strokeStyle = line;
  traceLines(
    pen,
    trials.filter((trial) => !isKept(trial)),
    x,
    y,
  );
  pen.lineWidth = kept.length > 200 ? 0.8 : 1.5;
  for (const group of grouped(kept, colourOf)) {
    pen.strokeStyle = colourOf(group[0]);
    pen.globalAlpha = kept.length > 200 ? 0.5 : 0.9;
    pen.setLineDash(DASH_LENGTHS[dashOf(group[0])] ?? []);
    traceLines(pen, group, x, y);
  }
  pen.setLineDash([]);
  pen.globalAlpha = 1;
  const chosen = data.trials[state.trial];
  pen.strokeStyle = ink;
  pen.lineWidth = 3;
  if (chosen && kept.includes(chosen)) traceLines(pen, [chosen], x, y);
  drawColumns(pen, { x, y, step, ink, soft, ground, band });
  tellKept(kept, trials);
}

const DASH_LENGTHS = {
  dash: [7, 4],
  dot: [2, 3],
  dashdot: [7, 3, 2, 3],
  longdash: [12, 4],
  longdashdot: [12, 3, 2, 3],
};

function traceLines(pen, trials, x, y) {
  pen.beginPath();
  for (const trial of trials) {
    let on = false;
    parallel().forEach((column, place) => {
      const at = column.at(trial);
      if (at === null) on = false;
      else if (on) pen.lineTo(x(place), y(at));
      else pen.moveTo(x(place), y(at));
      if (at !== null) on = true;
    });
  }
  pen.stroke();
}

function drawColumns(pen, { x, y, step, ink, soft, ground, band }) {
  parallel().forEach((column, place) => {
    pen.strokeStyle = soft;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x(place), y(0));
    pen.lineTo(x(place), y(1));
    pen.stroke();
    if (bands.has(place)) {
      const [low, high] = bands.get(place);
      pen.strokeStyle = band;
      pen.lineWidth = 5;
      pen.beginPath();
      pen.moveTo(x(place), y(low));
      pen.lineTo(x(place), y(high));
      pen.stroke();
    }
    const most = Math.max(4, Math.floor((step * 0.95) / 6));
    pen.textAlign = "center";
    const write = (text, top, size, colour) => {
      pen.font = `${size}px system-ui, sans-serif`;
      const shown = cut(text, most),
        wide = pen.measureText(shown).width;
      pen.fillStyle = ground;
      pen.fillRect(x(place) - wide / 2 - 2, top - size, wide + 4, size + 4);
      pen.fillStyle = colour;
      pen.fillText(shown, x(place), top);
    };
    write(column.label, place % 2 && step < 80 ? 34 : 16, 12, ink); // where it is narrow every second heading stands lower
    for (const [at, text] of column.ticks) write(text, y(at) + (at === 0 ? 18 : at === 1 ? -8 : 4), 11, soft);
  });
}

function tellKept(kept, trials) {
  by("parallel-told").textContent = bands.size
    ? `${kept.length} of ${trials.length} trials: ${kept
        .slice(0, 8)
        .map((trial) => trial.short)
        .join("; ")}${kept.length > 8 ? "; …" : ""}`
    : `All ${trials.length} trials shown.`;
  by("parallel-clear").hidden = !bands.size;
}

function startParallel() {
  const canvas = by("parallel");
  const where = (event) => {
    const box = canvas.getBoundingClientRect(),
      { x, y } = parallelPlaces();
    const across = event.clientX - box.left,
      down = event.clientY - box.top;
    const distances = parallel().map((_, place) => Math.abs(x(place) - across));
    const near = Math.min(...distances);
    const part = Math.min(1, Math.max(0, (y(0) - down) / (y(0) - y(1))));
    return near <= 24 ? { column: distances.indexOf(near), part } : null;
  };
  canvas.onpointerdown = (event) => {
    drag = where(event);
    if (drag) canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    canvas.style.cursor = where(event) ? "ns-resize" : "default";
    if (!drag) return;
    const box = canvas.getBoundingClientRect(),
      { y } = parallelPlaces();
    const part = Math.min(1, Math.max(0, (y(0) - (event.clientY - box.top)) / (y(0) - y(1))));
    bands.set(drag.column, [Math.min(drag.part, part), Math.max(drag.part, part)]);
    drawParallel();
  };
  canvas.onpointerup = () => {
    if (drag) {
      const [low, high] = bands.get(drag.column) ?? [0, 0];
      if (high - low < 0.02) bands.delete(drag.column); // a click on an axis lets all through again
      drawParallel();
    }
    drag = null;
  };
  by("parallel-clear").onclick = () => {
    bands.clear();
    drawParallel();
  };
}
