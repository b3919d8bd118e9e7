// What all charts share: frame, tool bar, the words on a point, the arms of an interval.

// named one by one: plotly's own choice has a button that sends the chart away
const tools = { plotlyServerURL: "", displaylogo: false, responsive: true };
const config = {
  ...tools,
  displayModeBar: !compact(),
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};
const still = { ...tools, displayModeBar: false };

function layout(x, y) {
  const { ink, soft, line, zero, ground } = look();
  const axis = (title) => ({
    title: { text: title, standoff: 8 },
    gridcolor: line,
    zerolinecolor: zero,
    automargin: true,
    ticks: "outside",
    tickcolor: line,
  });
  return {
    margin: { l: 55, r: 12, t: compact() ? 12 : 34, b: 48 }, // the tool bar stands above the chart, not on it
    modebar: { bgcolor: ground, color: soft, activecolor: ink },
    xaxis: axis(x),
    yaxis: axis(y),
    hovermode: "closest",
    showlegend: false,
    paper_bgcolor: ground,
    plot_bgcolor: ground,
    font: { family: "system-ui, sans-serif", size: 13, color: ink },
    hoverlabel: { bgcolor: ground, bordercolor: zero, font: { color: ink }, align: "left" },
    dragmode: compact() ? false : "zoom",
  };
}

function hover(trial) {
  const lines = [`<b>${plain(trial.name)}</b>`];
  for (const axis of varying) lines.push(`${plain(axis.label)}: ${plain(axisValue(trial, axis))}`);
  data.measures.forEach((name, place) => {
    lines.push(`${plain(data.labels[name])}: ${range(measure(trial, place), interval(trial, place))}`);
  });
  lines.push(`trained: ${plain(trial.costWords[0])}`);
  if (trial.state !== "done") lines.push(plain(trial.reached + (trial.stopped ? `: ${trial.stopped}` : "")));
  return lines.join("<br>");
}

// The arms of intervals around values: `found` are pairs or null, one for each value.
const armsOf = (values, found) => ({
  type: "data",
  symmetric: false,
  array: values.map((value, at) => (found[at] && value !== null ? Math.max(0, found[at][1] - value) : 0)),
  arrayminus: values.map((value, at) => (found[at] && value !== null ? Math.max(0, value - found[at][0]) : 0)),
  thickness: 1,
  width: 0,
});
const arms = (trials, place) => ({
  ...armsOf(
    trials.map((trial) => measure(trial, place)),
    trials.map((trial) => interval(trial, place)),
  ),
  visible: by("bars").checked,
});
const LOST = () => (compact() ? "held-out forg. (points)" : "held-out forgetting (points, below 0: forgot)");
// Learning against held-out forgetting, with the front of what is shown and the reader's budget.

// The report says which trials beat each finished one; of what is shown, those that none of the shown beats are the front.
function beats(other, trial) {
  return (parseInt(trial.beatenBy[other.place >> 2] || "0", 16) >> (other.place & 3)) & 1;
}

function fronts(trials) {
  return grouped(
    trials.filter((trial) => trial.beatenBy !== null),
    (trial) => trial.group,
  ).map((group) =>
    group
      .filter((trial) => !group.some((other) => beats(other, trial)))
      .sort((a, b) => measure(a, LEARNING) - measure(b, LEARNING) || measure(b, HELD_OUT) - measure(a, HELD_OUT)),
  );
}

// The trials that have a place in the chart, and those of them that nothing shown beats.
function shownPoints() {
  const trials = visible().filter((trial) => measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null);
  return [trials, fronts(trials).flat()];
}

function drawScatter() {
  const [trials, front] = shownPoints();
  const x = (list) => list.map((trial) => measure(trial, LEARNING)),
    y = (list) => list.map((trial) => measure(trial, HELD_OUT));
  const { ink, soft, ground } = look();
  const traces = fronts(trials).map((front) => ({
    x: x(front),
    y: y(front),
    mode: "lines",
    hoverinfo: "skip",
    line: { shape: "vh", dash: "dash", width: 1.3, color: soft },
  }));
  for (const group of grouped(trials, (trial) =>
    [colourOf(trial), symbolOf(trial), hollow(trial), trial.state === "done"].join(),
  )) {
    const colour = colourOf(group[0]);
    traces.push({
      x: x(group),
      y: y(group),
      mode: "markers",
      customdata: group.map((trial) => trial.place),
      text: group.map(hover),
      hovertemplate: "%{text}<extra></extra>",
      opacity: group[0].state === "done" ? 1 : 0.45,
      marker: {
        size: hollow(group[0]) ? 11 : 12.5,
        color: colour,
        symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : ""),
        line: { width: hollow(group[0]) ? 2 : 0.7, color: hollow(group[0]) ? colour : ground },
      },
      error_x: { ...arms(group, LEARNING), color: colour },
      error_y: { ...arms(group, HELD_OUT), color: colour },
    });
  }
  const chosen = trials.filter((trial) => trial.place === state.trial); // the last trace, moved by ring()
  traces.push({
    x: x(chosen),
    y: y(chosen),
    mode: "markers",
    hoverinfo: "skip",
    marker: { size: 21, symbol: "circle-open", color: ink, line: { width: 1.6 } },
  });
  const shape = layout("learning (points)", LOST());
  shape.shapes = budgetLine();
  if (!trials.length) shape.annotations = [emptyNote("no trial to show")];
  Plotly.react("scatter", traces, shape, config);
  if (trials.length) labelScatter(trials, front);
}

const emptyNote = (text) => ({
  text,
  showarrow: false,
  xref: "paper",
  yref: "paper",
  x: 0.5,
  y: 0.5,
  font: { color: look().soft },
});

// Names beside points: the selected trial and those of the front wherever there is room near them, others where it is free.
function labelScatter(trials, front) {
  const first = new Set([...trials.filter((trial) => trial.place === state.trial), ...[...front].reverse()]);
  const spots = [...first, ...trials.filter((trial) => !first.has(trial))].map((trial) => ({
    x: measure(trial, LEARNING),
    y: measure(trial, HELD_OUT),
    text: cut(trial.short, compact() ? 20 : 44),
    must: first.has(trial),
    across: by("bars").checked ? interval(trial, LEARNING) : null,
    up: by("bars").checked ? interval(trial, HELD_OUT) : null,
  }));
  labelPoints("scatter", spots, compact() ? 8 : 24);
}

function budgetLine() {
  if (budget() === null || !data.trials.length) return [];
  const line = { color: look().budget, width: 1.3, dash: "dot" };
  return [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: -budget(), y1: -budget(), line }];
}

// A choice moves the marks of both charts: to draw a thousand trials again for each would stall the page.
function ring() {
  if (!by("scatter").data || !by("curves").data) return; // what comes later shows the choice by itself
  const trial = data.trials[state.trial],
    shown = visible().includes(trial);
  const known = shown && measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null;
  Plotly.restyle(
    "scatter",
    { x: [known ? [measure(trial, LEARNING)] : []], y: [known ? [measure(trial, HELD_OUT)] : []] },
    [by("scatter").data.length - 1],
  );
  if (data.trials.length <= MANY && shown && known) labelScatter(...shownPoints());
  const trace = curveOf(shown ? [trial] : [], {}, true);
  const { x, y, text, customdata, error_y } = trace;
  Plotly.restyle("curves", { x: [x], y: [y], text: [text], customdata: [customdata], error_y: [error_y] }, [
    by("curves").data.length - 1,
  ]);
}

function budget() {
  const value = by("budget").valueAsNumber;
  return Number.isFinite(value) && value >= 0 ? value : null;
}

// Arrows go from point to point, from the least learnt to the most, and say what the mouse would show.
function step(event) {
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const trials = visible()
    .filter((trial) => measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null)
    .sort((a, b) => measure(a, LEARNING) - measure(b, LEARNING) || a.place - b.place);
  if (!way || !trials.length) return;
  event.preventDefault();
  const at = trials.findIndex((trial) => trial.place === state.trial);
  const trial = trials[at < 0 ? 0 : Math.min(trials.length - 1, Math.max(0, at + way))];
  choose(trial.place);
  by("scatter").data.forEach((trace, curveNumber) => {
    const pointNumber = (trace.customdata || []).indexOf(trial.place);
    if (pointNumber >= 0) Plotly.Fx.hover("scatter", [{ curveNumber, pointNumber }]);
  });
  by("scatter-told").textContent =
    `${trial.name}: learning ${points(measure(trial, LEARNING))}, held-out forgetting ${points(measure(trial, HELD_OUT))} points`;
}
