// Questions that flipped, as cards with their pictures.

function drawFlips() {
  const shown = whole.flips.find(
      (each) => each.name === by("flips-trial").value && each.benchmark === by("flips-benchmark").value,
    ),
    box = by("flips");
  box.replaceChildren();
  for (const [kind, title] of [
    ["lost", "Answered before, not after"],
    ["gained", "Answered after, not before"],
  ]) {
    if (!shown) continue;
    box.append(make("h3", `${title}: ${shown[`${kind}_count`]} of ${shown.questions}`));
    for (const each of shown[kind]) {
      const card = make("div", null, { class: "flip" }),
        text = make("div");
      if (each.image) card.append(make("img", null, { src: each.image, alt: "", loading: "lazy" }));
      text.append(
        make("p", each.question),
        make("p", `wanted: ${each.references.join(" / ")}`),
        make("p", `before: ${each.before}`),
        make("p", `after: ${each.after}`),
      );
      card.append(text);
      box.append(card);
    }
  }
}
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
// One trial: its scores, stage by benchmark, and its loss.

function shade(difference, scale) {
  const part = Math.min(1, Math.abs(difference) / scale),
    end = difference < 0 ? [217, 101, 27] : [42, 120, 184];
  const mixed = end.map((channel) => Math.round(255 + (channel - 255) * part));
  return { background: `rgb(${mixed.join()})`, ink: part > 0.72 ? "#fff" : INK };
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
  const columns = [...taught, ...others],
    base = trial.stages.find((stage) => stage.number === 0);
  const change = (stage, place) =>
    base && stage.scores[place] !== null && base.scores[place] !== null
      ? stage.scores[place] - base.scores[place]
      : null;
  const scale = Math.max(
    10,
    ...trial.stages.flatMap((stage) => columns.map((place) => Math.abs(change(stage, place) || 0))),
  );
  const gap = (place) => (place === others[0] && taught.length ? "gap" : "");
  const groups = make("tr"),
    head = make("tr");
  groups.append(make("th", "", { class: "side" }));
  if (taught.length) groups.append(make("th", "taught skills", { colspan: taught.length, scope: "colgroup" }));
  if (others.length)
    groups.append(make("th", "held out", { colspan: others.length, scope: "colgroup", class: gap(others[0]) }));
  head.append(
    make("th", "stage", { class: "side", scope: "col" }),
    ...columns.map((place) => make("th", data.benchmarks[place], { scope: "col", class: gap(place) })),
  );
  const body = make("tbody");
  for (const stage of trial.stages) {
    const row = make("tr");
    row.append(
      make("th", stage.number === 0 ? "0 before" : `${stage.number} ${stage.skill || ""}`, {
        class: "side",
        scope: "row",
      }),
    );
    for (const place of columns) {
      const score = stage.scores[place],
        difference = change(stage, place);
      const cell = make("td", score === null ? "–" : score.toFixed(1), {
        class: `${gap(place)} ${stage.skill === data.benchmarks[place] ? "own" : ""}`,
      });
      if (difference !== null && stage !== base) {
        const look = shade(difference, scale);
        cell.style.background = look.background;
        cell.style.color = look.ink;
        cell.append(make("small", points(difference)));
      }
      if (stage.counts[place]) cell.title = `${data.benchmarks[place]}: ${stage.counts[place]} questions`;
      row.append(cell);
    }
    body.append(row);
  }
  const top = make("thead");
  top.append(groups, head);
  table.append(top, body);
}

function drawLoss() {
  const trial = data.trials[state.trial];
  const stages = trial ? trial.stages.filter((stage) => stage.updates.length) : [];
  by("loss").classList.toggle("empty", !stages.length);
  if (!stages.length) return;
  let start = 0;
  const traces = [],
    shape = layout("updates over all stages", "training loss");
  shape.shapes = [];
  shape.annotations = [];
  shape.margin.t = 26;
  stages.forEach((stage, place) => {
    traces.push({
      x: stage.updates.map((update) => start + update),
      y: stage.loss,
      mode: "lines",
      name: plain(stage.skill || ""),
      line: { width: 1.6, color: place % 2 ? "#d55e00" : "#0072b2" },
      text: stage.updates.map((update) => `${plain(stage.skill || "")}, update ${update}`),
      hovertemplate: "%{text}: %{y:.3f}<extra></extra>",
    });
    shape.annotations.push({
      x: start,
      y: 1,
      yref: "paper",
      yanchor: "bottom",
      xanchor: "left",
      showarrow: false,
      text: compact() ? String(stage.number) : plain(stage.skill || ""),
      font: { size: 12, color: SOFT },
    });
    if (place)
      shape.shapes.push({
        type: "line",
        x0: start,
        x1: start,
        y0: 0,
        y1: 1,
        yref: "paper",
        line: { color: "#aab2bd", width: 1, dash: "dot" },
      });
    start += stage.updates[stage.updates.length - 1];
  });
  Plotly.react("loss", traces, shape, { ...config, displayModeBar: false });
}
