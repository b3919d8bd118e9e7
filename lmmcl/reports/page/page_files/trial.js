// A value stage by stage, a line for each trial.

function stageValue(stage) {
  const place = data.measures.indexOf(state.value);
  if (place >= 0) return stage.measures[place];
  if (state.value.startsWith("score/")) return stage.scores[data.benchmarks.indexOf(state.value.slice(6))] ?? null;
  return stage.probes[data.probes.indexOf(state.value.slice(6))] ?? null;
}

function stageInterval(stage) {
  const place = data.measures.indexOf(state.value);
  if (place >= 0) return ends(stage, place);
  return state.value.startsWith("score/") ? scoreEnds(stage, data.benchmarks.indexOf(state.value.slice(6))) : null;
}

function curveOf(group, style = {}, bars = false, aside = () => 0) {
  const found = {
    x: [],
    y: [],
    text: [],
    customdata: [],
    mode: "lines+markers",
    connectgaps: false,
    hovertemplate: "%{text}<extra></extra>",
    ...style,
  };
  const intervals = [];
  for (const trial of group) {
    for (const stage of trial.stages) {
      const value = stageValue(stage),
        around = stageInterval(stage);
      found.x.push(stage.number + aside(trial));
      found.y.push(value);
      intervals.push(around);
      const shown = state.value.startsWith("probe/")
        ? value?.toPrecision(4)
        : state.value.startsWith("score/") && value !== null
          ? scoreRange(value, around)
          : range(value, around);
      found.text.push(
        `<b>${plain(trial.name)}</b>${stage.skill ? `<br>after ${plain(stage.skill)}` : ""}<br>stage ${stage.number}: ${shown}`,
      );
      found.customdata.push(trial.place);
    }
    for (const [list, nothing] of [
      [found.x, null],
      [found.y, null],
      [found.text, ""],
      [found.customdata, null],
      [intervals, null],
    ])
      list.push(nothing);
  }
  found.error_y = { ...armsOf(found.y, intervals), visible: bars && intervals.some(Boolean) };
  return found;
}

// Which lines are named first, where not all can be: the selected one, those of the front, those that learn most.
function byImportance(trials) {
  return [...trials].sort(
    (a, b) =>
      (b.place === state.trial) - (a.place === state.trial) || Number(b.front) - Number(a.front) || a.place - b.place,
  );
}

function drawCurves() {
  const trials = visible().filter((trial) => trial.stages.some((stage) => stageValue(stage) !== null));
  const few = trials.length <= 16,
    { ink } = look();
  const seat = new Map(trials.map((trial, at) => [trial.place, few ? (at - (trials.length - 1) / 2) * 0.02 : 0]));
  const aside = (trial) => seat.get(trial.place) ?? 0;
  const traces = grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map((group) => {
    const colour = colourOf(group[0]);
    const style = {
      line: { color: colour, width: 1.6, dash: dashOf(group[0]) },
      opacity: few ? 1 : Math.max(0.3, Math.min(0.8, 60 / trials.length)),
      mode: trials.length > 100 ? "lines" : "lines+markers",
      marker: { size: 7, color: colour, symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : "") },
    };
    const trace = curveOf(group, style, few, aside);
    trace.error_y.color = colour;
    return trace;
  });
  const chosen = trials.filter((trial) => trial.place === state.trial);
  const style = { line: { color: ink, width: 3 }, marker: { size: 8, color: ink } };
  traces.push(curveOf(chosen, style, true));
  const shape = layout("stage", plain(by("measure").selectedOptions[0].textContent));
  const orders = new Set(trials.map((trial) => JSON.stringify(trial.skills)));
  const numbers = [...new Set(trials.flatMap((trial) => trial.stages.map((stage) => stage.number)))].sort(
    (a, b) => a - b,
  );
  shape.xaxis.tickvals = numbers;
  shape.xaxis.ticktext = numbers.map((number) =>
    number === 0 ? "before" : orders.size === 1 && !compact() ? plain(trials[0].skills[number - 1]) : String(number),
  );
  if (orders.size === 1) shape.xaxis.title.text = "after stage";
  const named = byImportance(trials).slice(0, MANY);
  const room = endRoom(
    "curves",
    named.map((trial) => trial.short),
  );
  shape.margin.r = room.margin;
  if (!trials.length) shape.annotations = [emptyNote("no trial to show")];
  Plotly.react("curves", traces, shape, config);
  const lines = named.map((trial) => {
    const stage = trial.stages.filter((each) => stageValue(each) !== null).pop();
    return { x: stage.number + aside(trial), y: stageValue(stage), text: trial.short, colour: colourOf(trial) };
  });
  if (lines.length) labelEnds("curves", lines, room.letters);
}
// One trial: its scores, stage by benchmark, and its loss.

// Rows (stages) sort by a benchmark, columns (benchmarks) by what changed at a stage.
const matrixSort = { benchmark: null, stage: null, down: true };
function sortMatrix(key, value) {
  matrixSort.down = matrixSort[key] === value ? !matrixSort.down : true;
  Object.assign(matrixSort, { benchmark: null, stage: null, [key]: value });
  drawMatrix();
}

function drawMatrix() {
  const trial = data.trials[state.trial],
    table = by("matrix");
  table.replaceChildren();
  by("trial-note").replaceChildren();
  if (!trial) return;
  const facts = data.axes
    .map((axis) => `${axis.label} ${axisValue(trial, axis)}`)
    .filter((text) => !text.endsWith(" none"));
  by("trial-note").append(
    `${facts.join(" · ")} · ${trial.reached}. Trained ${trial.costWords[0]}, size on disk ${trial.costWords[1]}, time ${trial.costWords[2]}, peak memory ${trial.costWords[3]}.`,
  );
  if (trial.error) by("trial-note").append(make("div", trial.error, { class: "error" }));
  const taught = [...new Set(trial.skills)].map((name) => data.benchmarks.indexOf(name)).filter((place) => place >= 0);
  const others = data.benchmarks
    .map((_, place) => place)
    .filter((place) => !taught.includes(place) && trial.stages.some((stage) => stage.scores[place] !== null));
  let columns = [...taught, ...others];
  const base = trial.stages.find((stage) => stage.number === 0);
  const change = (stage, place) =>
    base && stage.scores[place] !== null && base.scores[place] !== null
      ? stage.scores[place] - base.scores[place]
      : null;
  const sortedBy = trial.stages.find((stage) => stage.number === matrixSort.stage);
  if (sortedBy)
    columns = [taught, others].flatMap((part) =>
      bySize(
        part.map((place) => change(sortedBy, place)),
        matrixSort.down,
      ).map((at) => part[at]),
    );
  const gapBefore = columns[taught.length];
  const stages = columns.includes(matrixSort.benchmark)
    ? bySize(
        trial.stages.map((stage) => stage.scores[matrixSort.benchmark]),
        matrixSort.down,
      ).map((at) => trial.stages[at])
    : trial.stages;
  const scale = Math.max(
    10,
    ...trial.stages.flatMap((stage) => columns.map((place) => Math.abs(change(stage, place) || 0))),
  );
  const gap = (place) => (place === gapBefore && taught.length ? "gap" : "");
  const groups = make("tr"),
    head = make("tr");
  groups.append(make("th", "", { class: "side" }));
  if (taught.length) groups.append(make("th", "taught skills", { colspan: taught.length, scope: "colgroup" }));
  if (others.length)
    groups.append(make("th", "held out", { colspan: others.length, scope: "colgroup", class: gap(gapBefore) }));
  head.append(
    make("th", "stage", { class: "side", scope: "col" }),
    ...columns.map((place) => {
      const cell = sortButton(data.benchmarks[place], place === matrixSort.benchmark, matrixSort.down, () =>
        sortMatrix("benchmark", place),
      );
      if (gap(place)) cell.classList.add(gap(place));
      return cell;
    }),
  );
  const body = make("tbody");
  for (const stage of stages) {
    const row = make("tr"),
      name = make("th", null, { class: "side", scope: "row" });
    const button = make("button", stage.number === 0 ? "0 before" : `${stage.number} ${stage.skill || ""}`, {
      type: "button",
      title: "sort the benchmarks by their change at this stage",
    });
    button.onclick = () => sortMatrix("stage", stage.number);
    name.append(button);
    row.append(name);
    for (const place of columns) {
      const score = stage.scores[place],
        difference = change(stage, place);
      const cell = make("td", score === null ? "–" : tenth(score), {
        class: `${gap(place)} ${stage.skill === data.benchmarks[place] ? "own" : ""}`,
      });
      if (difference !== null && stage !== base) {
        const { background, ink } = shade(difference, scale);
        cell.style.background = background;
        cell.style.color = ink;
        cell.append(make("small", points(difference)));
      }
      const around = scoreEnds(stage, place);
      if (stage.counts[place])
        cell.title = `${data.benchmarks[place]}: ${stage.counts[place]} questions${around ? `, 95 % interval ${around.map(tenth).join(" … ")}` : ""}`;
      row.append(cell);
    }
    body.append(row);
  }
  const top = make("thead");
  top.append(groups, head);
  table.append(top, body);
}

// Loss of the trials that are compared (of the selected one, where none is), one stage after the other.
function drawLoss() {
  const chosen = compared().filter((trial) => trial.stages.some((stage) => stage.updates.length));
  by("loss").classList.toggle("empty", !chosen.length);
  if (!chosen.length) return;
  const shape = layout("updates over all stages", "training loss"),
    { soft, zero } = look();
  shape.shapes = [];
  const heads = [],
    lines = [];
  shape.margin.t = 44;
  const traces = chosen.map((trial, rank) => {
    const trace = { x: [], y: [], text: [], mode: "lines", hovertemplate: "%{text}: %{y:.3f}<extra></extra>" };
    const colour = data.words[night() ? 1 : 0][rank % data.words[0].length];
    trace.line = { width: 1.6, color: colour, dash: data.dashes[rank % data.dashes.length] };
    let start = 0;
    for (const stage of trial.stages.filter((each) => each.updates.length)) {
      stage.updates.forEach((update, at) => {
        trace.x.push(start + update);
        trace.y.push(stage.loss[at]);
        trace.text.push(`<b>${plain(trial.name)}</b><br>${plain(stage.skill || "")}, update ${update}`);
      });
      if (!rank) {
        heads.push({
          start: start + stage.updates[0],
          text: compact() ? String(stage.number) : plain(stage.skill || ""),
        });
        if (start) shape.shapes.push(upright(start, zero));
      }
      start += stage.updates[stage.updates.length - 1];
    }
    lines.push({ x: trace.x[trace.x.length - 1], y: trace.y[trace.y.length - 1], text: trial.short, colour });
    return trace;
  });
  const notes = heads.map(({ start, text }) => ({
    x: start,
    y: 1,
    yref: "paper",
    yanchor: "bottom",
    xanchor: "left",
    showarrow: false,
    text,
    font: { size: 12, color: soft },
  }));
  const room = endRoom(
    "loss",
    lines.map((line) => line.text),
  );
  shape.margin.r = room.margin;
  Plotly.react("loss", traces, shape, still);
  labelEnds("loss", lines, room.letters, notes);
}

const MOST_LOSSES = 8;

// The trials whose losses are drawn, as chips that take them out again.
function drawLossTrials() {
  by("loss-trials").replaceChildren(
    ...state.compared.map((place) => {
      const chip = make("button", `${data.trials[place].short} ×`, {
        type: "button",
        class: "chip",
        "aria-label": `remove ${data.trials[place].name}`,
      });
      chip.onclick = () => {
        state.compared = state.compared.filter((other) => other !== place);
        drawLossTrials();
        drawLoss();
      };
      return chip;
    }),
  );
}

const upright = (x, color) => ({
  type: "line",
  x0: x,
  x1: x,
  y0: 0,
  y1: 1,
  yref: "paper",
  line: { color, width: 1, dash: "dot" },
});
