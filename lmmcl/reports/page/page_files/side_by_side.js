// Two trials side by side: the paired differences that the report has computed, with their intervals.

const pairs = whole.pairs;

// The comparison of two of the trials, whichever was computed as the first.
function pairOf(first, second) {
  const direct = pairs.pairs.find(({ trials }) => trials[0] === first && trials[1] === second);
  if (direct) return { ...direct, text: direct.words[0] };
  const turned = pairs.pairs.find(({ trials }) => trials[0] === second && trials[1] === first);
  if (!turned) return null;
  const turn = ([name, label, one, other, value, low, high, ...more]) => [
    name,
    label,
    other,
    one,
    -value,
    -high,
    -low,
    ...more,
  ];
  return {
    ...turned,
    text: turned.words[1],
    measures: turned.measures.map(turn),
    benchmarks: turned.benchmarks.map(turn),
  };
}

function drawPair() {
  if (!pairs.trials.length) return;
  const [first, second] = ["pair-first", "pair-second"].map((id) => Number(by(id).value));
  for (const option of by("pair-second").options)
    option.disabled = Number(option.value) === first || !pairOf(first, Number(option.value));
  const pair = pairOf(first, second);
  by("pair-text").textContent = pair
    ? `${pairs.trials[second].short} against ${pairs.trials[first].short}: ${pair.text}`
    : "These two are not compared here: choose another second trial.";
  by("pair-note").textContent = pair
    ? `Points after stage ${pair.stage}. ${pair.seeds > 1 ? `Over ${pair.seeds} seeds: intervals cover the sampling of questions and of seeds.` : "One seed: intervals cover the sampling of questions, not of seeds."} Filled points and bold rows differ significantly at 5 % (of benchmarks after Holm's correction).`
    : "";
  by("pair").classList.toggle("empty", !pair);
  by("pair-table").replaceChildren();
  if (!pair) return;
  drawPairTable(pair);
  drawPairChart(pair);
}

function drawPairTable(pair) {
  const table = by("pair-table");
  for (const [kind, rows] of [
    ["measure", pair.measures],
    ["benchmark", pair.benchmarks],
  ]) {
    if (!rows.length) continue;
    const head = make("tr"),
      body = make("tbody");
    for (const text of [kind, "first", "second", "second − first", "p", kind === "benchmark" ? "p (Holm)" : ""])
      head.append(text ? make("th", text, { scope: "col", class: text === kind ? "" : "number" }) : make("td", ""));
    body.append(head);
    for (const [, label, one, other, value, low, high, p, holm, significant] of rows) {
      const row = make("tr", null, significant ? { class: "significant" } : {}),
        shown = kind === "measure" ? points : tenth;
      row.append(make("th", label, { scope: "row" }));
      for (const text of [shown(one), shown(other), range(value, [low, high]), p, kind === "benchmark" ? holm : ""])
        row.append(make("td", text, { class: "number" }));
      body.append(row);
    }
    table.append(body);
  }
}

function drawPairChart(pair) {
  const rows = [...pair.measures, ...pair.benchmarks].reverse(),
    { ink, zero } = look();
  const y = rows.map((_, at) => at),
    x = rows.map((row) => row[4]);
  const trace = {
    x,
    y,
    mode: "markers",
    text: rows.map((row) => `${plain(row[1])}: ${range(row[4], [row[5], row[6]])}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: { size: 9, color: ink, symbol: rows.map((row) => (row[9] ? "circle" : "circle-open")) },
    error_x: {
      ...armsOf(
        x,
        rows.map((row) => [row[5], row[6]]),
      ),
      color: ink,
      thickness: 1.4,
    },
  };
  const shape = layout("second − first (points)", "");
  shape.margin.t = 12;
  Object.assign(shape.yaxis, {
    tickvals: y,
    ticktext: rows.map((row) => plain(cut(row[1], compact() ? 16 : 40))),
    range: [-0.7, rows.length - 0.3],
    zeroline: false,
  });
  shape.height = 90 + 24 * rows.length;
  shape.shapes = [{ ...upright(0, zero), line: { color: zero, width: 1.4 } }];
  if (pair.measures.length && pair.benchmarks.length) {
    const between = pair.benchmarks.length - 0.5;
    shape.shapes.push({
      type: "line",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: between,
      y1: between,
      line: { color: zero, width: 1, dash: "dot" },
    });
  }
  by("pair").style.height = `${shape.height}px`;
  Plotly.react("pair", [trace], shape, still);
}

// The trial that the report recommends, and the one of the others that learns most.
function startPair() {
  by("pair-section").hidden = !pairs.trials.length;
  if (!pairs.trials.length) return;
  for (const id of ["pair-first", "pair-second"]) {
    pairs.trials.forEach((trial, place) => {
      by(id).append(make("option", trial.short, { value: place, title: trial.name }));
    });
    by(id).onchange = drawPair;
  }
  const pick = whole.advice.groups.map((group) => choiceUnder(group, whole.advice.budget)).find(Boolean);
  const first = Math.max(
    0,
    pairs.trials.findIndex((trial) => trial.key === pick?.key),
  );
  by("pair-first").value = String(first);
  const second = pairs.trials.findIndex((_, place) => place !== first && pairOf(first, place));
  by("pair-second").value = String(Math.max(0, second));
  by("pair-command").textContent = `lmmcl compare ${whole.file || "SWEEP"} TRIAL TRIAL`;
}
