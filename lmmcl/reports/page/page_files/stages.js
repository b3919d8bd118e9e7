// A value stage by stage, a line for each trial.

function stageValue(trial, stage) {
  const place = data.measures.indexOf(state.value),
    benchmark = state.value.startsWith("score/") ? data.benchmarks.indexOf(state.value.slice(6)) : -1;
  if (place >= 0) return stage.measures[place];
  if (benchmark >= 0) return stage.scores[benchmark];
  if (state.value.startsWith("probe/")) return stage.probes[data.probes.indexOf(state.value.slice(6))];
  const scores = trial.heldOut.map((name) => stage.scores[data.benchmarks.indexOf(name)]);
  const known = scores.filter((score) => score !== null && score !== undefined);
  return known.length && known.length === scores.length
    ? known.reduce((sum, score) => sum + score, 0) / known.length
    : null;
}

function curveOf(group, look = {}) {
  const found = {
    x: [],
    y: [],
    text: [],
    customdata: [],
    mode: "lines+markers",
    connectgaps: false,
    hovertemplate: "%{text}<br>stage %{x}: %{y:.4~g}<extra></extra>",
    ...look,
  };
  for (const trial of group) {
    for (const stage of trial.stages) {
      found.x.push(stage.number);
      found.y.push(stageValue(trial, stage));
      found.text.push(`<b>${plain(trial.name)}</b>${stage.skill ? `<br>after ${plain(stage.skill)}` : ""}`);
      found.customdata.push(trial.place);
    }
    found.x.push(null);
    found.y.push(null);
    found.text.push("");
    found.customdata.push(null);
  }
  return found;
}

function drawCurves() {
  const trials = visible().filter((trial) => trial.stages.length);
  const traces = grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map((group) =>
    curveOf(group, {
      line: { color: colourOf(group[0]), width: 1.4 },
      opacity: Math.max(0.25, Math.min(0.75, 60 / trials.length)),
      mode: trials.length > 100 ? "lines" : "lines+markers",
      marker: { size: 6, color: colourOf(group[0]), symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : "") },
    }),
  );
  traces.push(
    curveOf(
      trials.filter((trial) => trial.place === state.trial),
      { line: { color: INK, width: 3 }, marker: { size: 8, color: INK } },
    ),
  );
  const shape = layout("stage", plain(by("measure").selectedOptions[0].textContent));
  const orders = new Set(trials.map((trial) => JSON.stringify(trial.skills)));
  const numbers = [...new Set(trials.flatMap((trial) => trial.stages.map((stage) => stage.number)))].sort(
    (a, b) => a - b,
  );
  shape.xaxis.tickvals = numbers;
  shape.xaxis.ticktext = numbers.map((number) =>
    number === 0 ? "before" : orders.size === 1 ? plain(trials[0].skills[number - 1]) : String(number),
  );
  if (orders.size === 1) shape.xaxis.title.text = "after stage";
  Plotly.react("curves", traces, shape, config);
}
