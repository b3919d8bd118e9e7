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
    `${facts.join(" · ")} · ${trial.reached}. Trained ${trial.costWords[0]}, on disk ${trial.costWords[1]}, time ${trial.costWords[2]}, peak memory ${trial.costWords[3]}.`,
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
