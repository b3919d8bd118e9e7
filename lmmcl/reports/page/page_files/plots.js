// What all charts share: frame, tool bar, the words on a point, the arms of an interval.

// named one by one: plotly's own choice has a button that sends the chart away
const config = {
  displaylogo: false,
  displayModeBar: !compact(),
  responsive: true,
  plotlyServerURL: "",
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

function layout(x, y) {
  const axis = (title) => ({
    title: { text: title, standoff: 8 },
    gridcolor: LINE,
    zerolinecolor: "#aab2bd",
    automargin: true,
    ticks: "outside",
    tickcolor: LINE,
  });
  return {
    margin: { l: 55, r: 12, t: 12, b: 48 },
    xaxis: axis(x),
    yaxis: axis(y),
    hovermode: "closest",
    showlegend: false,
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
    font: { family: "system-ui, sans-serif", size: 13, color: INK },
    hoverlabel: { bgcolor: "#fff", bordercolor: "#aab2bd", font: { color: INK }, align: "left" },
    dragmode: compact() ? false : "zoom",
  };
}

function hover(trial) {
  const lines = [`<b>${plain(trial.name)}</b>`];
  for (const axis of varying) lines.push(`${plain(axis.label)}: ${plain(axisValue(trial, axis))}`);
  data.measures.forEach((name, place) => {
    const ends = interval(trial, place);
    lines.push(
      `${plain(data.labels[name])}: ${points(measure(trial, place))}${ends ? ` [${points(ends[0])}, ${points(ends[1])}]` : ""}`,
    );
  });
  lines.push(`trained: ${plain(trial.costWords[0])}`);
  if (trial.state !== "done") lines.push(plain(trial.reached + (trial.stopped ? `: ${trial.stopped}` : "")));
  return lines.join("<br>");
}

const arms = (trials, place) => {
  const lengths = (end) =>
    trials.map((trial) => {
      const ends = interval(trial, place),
        value = measure(trial, place);
      return ends ? Math.max(0, end ? ends[1] - value : value - ends[0]) : 0;
    });
  return {
    type: "data",
    symmetric: false,
    array: lengths(1),
    arrayminus: lengths(0),
    thickness: 1,
    width: 0,
    visible: by("bars").checked,
  };
};
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

function drawScatter() {
  const trials = visible().filter((trial) => measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null);
  const x = (list) => list.map((trial) => measure(trial, LEARNING)),
    y = (list) => list.map((trial) => measure(trial, HELD_OUT));
  const traces = fronts(trials).map((front) => ({
    x: x(front),
    y: y(front),
    mode: "lines",
    hoverinfo: "skip",
    line: { shape: "vh", dash: "dash", width: 1.3, color: SOFT },
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
        line: { width: hollow(group[0]) ? 2 : 0.7, color: hollow(group[0]) ? colour : "#fff" },
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
    marker: { size: 21, symbol: "circle-open", color: INK, line: { width: 1.6 } },
  });
  const shape = layout("learning (points)", "held-out forgetting (points, below 0: forgot)");
  if (budget() !== null && data.trials.length)
    shape.shapes = [
      {
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: -budget(),
        y1: -budget(),
        line: { color: "#cc79a7", width: 1.3, dash: "dot" },
      },
    ];
  if (!trials.length)
    shape.annotations = [
      {
        text: "no trial to show",
        showarrow: false,
        xref: "paper",
        yref: "paper",
        x: 0.5,
        y: 0.5,
        font: { color: SOFT },
      },
    ];
  Plotly.react("scatter", traces, shape, config);
}

// A choice moves the marks of both charts: to draw a thousand trials again for each would stall the page.
function ring() {
  const trial = data.trials[state.trial],
    shown = visible().includes(trial);
  const known = shown && measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null;
  Plotly.restyle(
    "scatter",
    { x: [known ? [measure(trial, LEARNING)] : []], y: [known ? [measure(trial, HELD_OUT)] : []] },
    [by("scatter").data.length - 1],
  );
  const trace = curveOf(shown ? [trial] : []);
  Plotly.restyle("curves", { x: [trace.x], y: [trace.y], text: [trace.text], customdata: [trace.customdata] }, [
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
