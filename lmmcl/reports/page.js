"use strict";
// Draws the page from the JSON in #data. Strings of the sweep become text nodes, or pass plain() on their way into plotly.
(() => {
  const whole = JSON.parse(document.getElementById("data").textContent);
  const eachSeed = location.hash === "#seeds" && whole.single !== null;
  const data = eachSeed ? whole.single : whole;
  data.trials.forEach((trial, place) => { trial.place = place; });
  const by = (id) => document.getElementById(id);
  const axisIndex = Object.fromEntries(data.axes.map((axis, place) => [axis.name, place]));
  const colourAxis = data.axes[axisIndex[data.colour]], markerAxis = data.axes[axisIndex[data.marker]];
  const LEARNING = data.measures.indexOf("learning"), HELD_OUT = data.measures.indexOf("held_out_forgetting");
  const off = data.axes.map(() => new Set());  // for each axis, the values that are filtered out
  const state = { trial: 0, value: "mean", sort: null, down: true };
  const INK = "#1b1f24", SOFT = "#5b6470", LINE = "#e4e8ed";

  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  // plotly reads a little markup in its labels
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const points = (value) => {
    if (value === null || value === undefined) return "–";
    const rounded = Math.round(value * 10) / 10 + 0;  // + 0: what rounds to -0 has no minus
    return (rounded < 0 ? "" : "+") + rounded.toFixed(1);
  };
  const last = (trial) => trial.stages[trial.stages.length - 1];
  const measure = (trial, place) => last(trial) ? last(trial).measures[place] : null;
  const interval = (trial, place) => last(trial) && last(trial).intervals[place].length === 2 ? last(trial).intervals[place] : null;
  const valueOf = (trial, axis) => axis.values[trial.axes[axisIndex[axis.name]]];
  const colourOf = (trial) => colourAxis.colours[trial.axes[axisIndex[data.colour]]];
  const symbolOf = (trial) => markerAxis.symbols[trial.axes[axisIndex[data.marker]]];
  const hollow = (trial) => trial.mitigated && data.marker !== "mitigation" && data.colour !== "mitigation";
  const visible = () => data.trials.filter((trial) => trial.axes.every((value, axis) => !off[axis].has(value)));
  const varying = data.axes.filter((axis) => axis.values.length > 1);
  const compact = () => window.matchMedia("(max-width: 640px)").matches;
  // named one by one: plotly's own choice has a button that sends the chart away
  const config = { displaylogo: false, displayModeBar: !compact(), responsive: true, plotlyServerURL: "", modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  function layout(x, y) {
    const axis = (title) => ({ title: { text: title, standoff: 8 }, gridcolor: LINE, zerolinecolor: "#aab2bd", automargin: true, ticks: "outside", tickcolor: LINE });
    return { margin: { l: 55, r: 12, t: 12, b: 48 }, xaxis: axis(x), yaxis: axis(y), hovermode: "closest", showlegend: false,
      paper_bgcolor: "#fff", plot_bgcolor: "#fff", font: { family: "system-ui, sans-serif", size: 13, color: INK },
      hoverlabel: { bgcolor: "#fff", bordercolor: "#aab2bd", font: { color: INK }, align: "left" }, dragmode: compact() ? false : "zoom" };
  }

  function hover(trial) {
    const lines = [`<b>${plain(trial.name)}</b>`];
    for (const axis of varying) lines.push(`${plain(axis.label)}: ${plain(valueOf(trial, axis))}`);
    data.measures.forEach((name, place) => {
      const ends = interval(trial, place);
      lines.push(`${plain(data.labels[name])}: ${points(measure(trial, place))}${ends ? ` [${points(ends[0])}, ${points(ends[1])}]` : ""}`);
    });
    lines.push(`trained: ${plain(trial.costWords[0])}`);
    if (trial.state !== "done") lines.push(plain(trial.reached));
    return lines.join("<br>");
  }

  function grouped(trials, key) {
    const groups = new Map();
    for (const trial of trials) {
      const name = key(trial);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(trial);
    }
    return [...groups.values()];
  }

  const arms = (trials, place) => {
    const lengths = (end) => trials.map((trial) => {
      const ends = interval(trial, place), value = measure(trial, place);
      return ends ? Math.max(0, end ? ends[1] - value : value - ends[0]) : 0;
    });
    return { type: "data", symmetric: false, array: lengths(1), arrayminus: lengths(0), thickness: 1, width: 0, visible: by("bars").checked };
  };

  // Both coordinates maximised; only finished trials of one group (same model, same questions) are compared.
  function fronts(trials) {
    return grouped(trials.filter((trial) => trial.state === "done"), (trial) => trial.group).map((group) => {
      const sorted = [...group].sort((a, b) => measure(b, LEARNING) - measure(a, LEARNING) || measure(b, HELD_OUT) - measure(a, HELD_OUT));
      let best = -Infinity;
      return sorted.filter((trial) => measure(trial, HELD_OUT) > best && ((best = measure(trial, HELD_OUT)), true)).reverse();
    });
  }

  function drawScatter() {
    const trials = visible().filter((trial) => measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null);
    const x = (list) => list.map((trial) => measure(trial, LEARNING)), y = (list) => list.map((trial) => measure(trial, HELD_OUT));
    const traces = fronts(trials).map((front) => ({ x: x(front), y: y(front), mode: "lines", hoverinfo: "skip",
      line: { shape: "vh", dash: "dash", width: 1.3, color: SOFT } }));
    for (const group of grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial), trial.state === "done"].join())) {
      const colour = colourOf(group[0]);
      traces.push({ x: x(group), y: y(group), mode: "markers", customdata: group.map((trial) => trial.place),
        text: group.map(hover), hovertemplate: "%{text}<extra></extra>", opacity: group[0].state === "done" ? 1 : 0.45,
        marker: { size: hollow(group[0]) ? 11 : 12.5, color: colour, symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : ""), line: { width: hollow(group[0]) ? 2 : 0.7, color: hollow(group[0]) ? colour : "#fff" } },
        error_x: { ...arms(group, LEARNING), color: colour }, error_y: { ...arms(group, HELD_OUT), color: colour } });
    }
    const chosen = trials.filter((trial) => trial.place === state.trial);  // the last trace, moved by ring()
    traces.push({ x: x(chosen), y: y(chosen), mode: "markers", hoverinfo: "skip", marker: { size: 21, symbol: "circle-open", color: INK, line: { width: 1.6 } } });
    const shape = layout("learning (points)", "held-out forgetting (points)");
    if (budget() !== null && data.trials.length) shape.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: -budget(), y1: -budget(), line: { color: "#cc79a7", width: 1.3, dash: "dot" } }];
    if (!trials.length) shape.annotations = [{ text: "no trial to show", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: SOFT } }];
    Plotly.react("scatter", traces, shape, config);
  }

  // A choice moves the marks of both charts: to draw a thousand trials again for each would stall the page.
  function ring() {
    const trial = data.trials[state.trial], shown = visible().includes(trial);
    const known = shown && measure(trial, LEARNING) !== null && measure(trial, HELD_OUT) !== null;
    Plotly.restyle("scatter", { x: [known ? [measure(trial, LEARNING)] : []], y: [known ? [measure(trial, HELD_OUT)] : []] }, [by("scatter").data.length - 1]);
    const trace = curveOf(shown ? [trial] : []);
    Plotly.restyle("curves", { x: [trace.x], y: [trace.y], text: [trace.text], customdata: [trace.customdata] }, [by("curves").data.length - 1]);
  }

  function budget() {
    const value = by("budget").valueAsNumber;
    return Number.isFinite(value) && value >= 0 ? value : null;
  }

  function drawAdvice() {
    const box = by("advice-text"), groups = whole.advice.groups, allowed = budget() === null ? Infinity : budget();
    box.replaceChildren();
    for (const group of groups) {
      const fits = group.choices.filter((choice) => choice.heldOut >= -allowed), choice = fits[fits.length - 1], most = group.choices[group.choices.length - 1];
      const pick = make("p", groups.length > 1 ? `${group.model}: ` : "", { class: "pick" });
      const name = (each) => {
        if (eachSeed) return make("strong", each.name);
        const button = make("button", each.name, { type: "button", title: "show this trial" });
        button.onclick = () => choose(each.trial);
        return button;
      };
      box.append(pick);
      if (choice) {
        pick.append("Take ", name(choice), ".");
        box.append(...choice.lines.map((line) => make("p", line)));
        if (choice.low !== null && choice.low < -allowed) box.append(make("p", `Its loss may be beyond the budget: the interval reaches ${points(choice.low)}.`));
      } else {
        pick.append(`No finished trial keeps within this budget; the least is lost by ${group.least}.`);
      }
      const front = make("p", "On the front, from the least learnt to the most: ");
      group.choices.forEach((each, place) => front.append(...(place ? [" → "] : []), name(each)));
      box.append(front);
      if (choice !== most) front.append(`. Without a budget ${most.name} learns most.`);
    }
    by("advice").hidden = !groups.length;
  }

  // Bars of the first stage: markers' axis along x, colours' axis side by side.
  function drawFirst() {
    const trials = visible().filter((trial) => trial.stages.some((stage) => stage.number === 1));
    const names = markerAxis.values.map(plain), mean = (list) => list.length ? list.reduce((sum, value) => sum + value, 0) / list.length : null;
    const traces = [];
    colourAxis.values.forEach((value, at) => {
      const of = (name, place) => mean(trials.filter((trial) => trial.axes[axisIndex[data.colour]] === at && trial.axes[axisIndex[data.marker]] === name)
        .map((trial) => trial.stages.find((stage) => stage.number === 1).measures[place]).filter((found) => found !== null));
      for (const [place, yaxis] of [[LEARNING, "y"], [HELD_OUT, "y2"]]) {
        const y = names.map((_, name) => of(name, place));
        if (y.some((found) => found !== null)) traces.push({ type: "bar", x: names, y, yaxis, marker: { color: colourAxis.colours[at], line: { color: "#fff", width: 0.5 } },
          hovertemplate: `%{x}<br>${plain(colourAxis.label)}: ${plain(value)}<br>%{y:+.1f}<extra></extra>` });
      }
    });
    const shape = layout("", "learning");
    Object.assign(shape, { barmode: "group", bargap: 0.25 });
    Object.assign(shape.xaxis, { type: "category", anchor: "y2" });
    shape.yaxis.domain = [0.54, 1];
    shape.yaxis2 = { ...shape.yaxis, domain: [0, 0.46], title: { text: "held-out forg.", standoff: 8 } };
    by("first").closest("section").hidden = !traces.length;
    if (traces.length) Plotly.react("first", traces, shape, config);
  }

  function drawProbes() {
    by("probe-section").hidden = !data.probes.length;
    if (!data.probes.length) return;
    const place = data.probes.indexOf(by("probe").value), seen = new Set();
    const traces = grouped(visible(), (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map((group) => {
      const trace = { x: [], y: [], text: [], customdata: [], mode: "markers", hovertemplate: "%{text}<br>%{x:.4~g}: %{y:+.1f}<extra></extra>",
        marker: { size: 9, color: colourOf(group[0]), symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : ""), opacity: 0.8 } };
      for (const trial of group) for (const stage of trial.stages) {
        if (!stage.number || stage.probes[place] === null || stage.measures[HELD_OUT] === null) continue;
        trace.x.push(stage.probes[place]); trace.y.push(stage.measures[HELD_OUT]); trace.customdata.push(trial.place);
        trace.text.push(`<b>${plain(trial.name)}</b><br>after ${plain(stage.skill || "")}`);
      }
      return trace;
    });
    by("probe-note").textContent = data.correlations[by("probe").value] || "";
    Plotly.react("probes", traces, layout(plain(by("probe").value), "held-out forgetting (points)"), config);
  }

  function drawFlips() {
    const shown = whole.flips.find((each) => each.name === by("flips-trial").value && each.benchmark === by("flips-benchmark").value), box = by("flips");
    box.replaceChildren();
    for (const [kind, title] of [["lost", "Answered before, not after"], ["gained", "Answered after, not before"]]) {
      if (!shown) continue;
      box.append(make("h3", `${title}: ${shown[`${kind}_count`]} of ${shown.questions}`));
      for (const each of shown[kind]) {
        const card = make("div", null, { class: "flip" }), text = make("div");
        if (each.image) card.append(make("img", null, { src: each.image, alt: "", loading: "lazy" }));
        text.append(make("p", each.question), make("p", `wanted: ${each.references.join(" / ")}`), make("p", `before: ${each.before}`), make("p", `after: ${each.after}`));
        card.append(text);
        box.append(card);
      }
    }
  }

  function stageValue(trial, stage) {
    const place = data.measures.indexOf(state.value), benchmark = state.value.startsWith("score/") ? data.benchmarks.indexOf(state.value.slice(6)) : -1;
    if (place >= 0) return stage.measures[place];
    if (benchmark >= 0) return stage.scores[benchmark];
    if (state.value.startsWith("probe/")) return stage.probes[data.probes.indexOf(state.value.slice(6))];
    const scores = trial.heldOut.map((name) => stage.scores[data.benchmarks.indexOf(name)]);
    const known = scores.filter((score) => score !== null && score !== undefined);
    return known.length && known.length === scores.length ? known.reduce((sum, score) => sum + score, 0) / known.length : null;
  }

  function curveOf(group, look = {}) {
    const found = { x: [], y: [], text: [], customdata: [], mode: "lines+markers", connectgaps: false, hovertemplate: "%{text}<br>stage %{x}: %{y:.4~g}<extra></extra>", ...look };
    for (const trial of group) {
      for (const stage of trial.stages) {
        found.x.push(stage.number); found.y.push(stageValue(trial, stage));
        found.text.push(`<b>${plain(trial.name)}</b>${stage.skill ? `<br>after ${plain(stage.skill)}` : ""}`); found.customdata.push(trial.place);
      }
      found.x.push(null); found.y.push(null); found.text.push(""); found.customdata.push(null);
    }
    return found;
  }

  function drawCurves() {
    const trials = visible().filter((trial) => trial.stages.length);
    const traces = grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map((group) => curveOf(group, {
      line: { color: colourOf(group[0]), width: 1.4 }, opacity: Math.max(0.25, Math.min(0.75, 60 / trials.length)), mode: trials.length > 100 ? "lines" : "lines+markers",
      marker: { size: 6, color: colourOf(group[0]), symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : "") } }));
    traces.push(curveOf(trials.filter((trial) => trial.place === state.trial), { line: { color: INK, width: 3 }, marker: { size: 8, color: INK } }));
    const shape = layout("stage", plain(by("measure").selectedOptions[0].textContent));
    const orders = new Set(trials.map((trial) => JSON.stringify(trial.skills)));
    const numbers = [...new Set(trials.flatMap((trial) => trial.stages.map((stage) => stage.number)))].sort((a, b) => a - b);
    shape.xaxis.tickvals = numbers;
    shape.xaxis.ticktext = numbers.map((number) => number === 0 ? "before" : orders.size === 1 ? plain(trials[0].skills[number - 1]) : String(number));
    if (orders.size === 1) shape.xaxis.title.text = "after stage";
    Plotly.react("curves", traces, shape, config);
  }

  function shade(difference, scale) {
    const part = Math.min(1, Math.abs(difference) / scale), end = difference < 0 ? [217, 101, 27] : [42, 120, 184];
    const mixed = end.map((channel) => Math.round(255 + (channel - 255) * part));
    return { background: `rgb(${mixed.join()})`, ink: part > 0.72 ? "#fff" : INK };
  }

  function drawMatrix() {
    const trial = data.trials[state.trial], table = by("matrix");
    table.replaceChildren();
    by("trial-note").replaceChildren();
    if (!trial) return;
    const facts = data.axes.map((axis) => `${axis.label} ${valueOf(trial, axis)}`).filter((text) => !text.endsWith(" none"));
    by("trial-note").append(`${facts.join(" · ")} · ${trial.reached}. Trained ${trial.costWords[0]}, on disk ${trial.costWords[1]}, time ${trial.costWords[2]}, peak memory ${trial.costWords[3]}.`);
    if (trial.error) by("trial-note").append(make("div", trial.error, { class: "error" }));
    const taught = [...new Set(trial.skills)].map((name) => data.benchmarks.indexOf(name)).filter((place) => place >= 0);
    const others = data.benchmarks.map((_, place) => place).filter((place) => !taught.includes(place) && trial.stages.some((stage) => stage.scores[place] !== null));
    const columns = [...taught, ...others], base = trial.stages.find((stage) => stage.number === 0);
    const change = (stage, place) => base && stage.scores[place] !== null && base.scores[place] !== null ? stage.scores[place] - base.scores[place] : null;
    const scale = Math.max(10, ...trial.stages.flatMap((stage) => columns.map((place) => Math.abs(change(stage, place) || 0))));
    const gap = (place) => place === others[0] && taught.length ? "gap" : "";
    const groups = make("tr"), head = make("tr");
    groups.append(make("th", "", { class: "side" }));
    if (taught.length) groups.append(make("th", "taught skills", { colspan: taught.length, scope: "colgroup" }));
    if (others.length) groups.append(make("th", "held out", { colspan: others.length, scope: "colgroup", class: gap(others[0]) }));
    head.append(make("th", "stage", { class: "side", scope: "col" }), ...columns.map((place) => make("th", data.benchmarks[place], { scope: "col", class: gap(place) })));
    const body = make("tbody");
    for (const stage of trial.stages) {
      const row = make("tr");
      row.append(make("th", stage.number === 0 ? "0 before" : `${stage.number} ${stage.skill || ""}`, { class: "side", scope: "row" }));
      for (const place of columns) {
        const score = stage.scores[place], difference = change(stage, place);
        const cell = make("td", score === null ? "–" : score.toFixed(1), { class: `${gap(place)} ${stage.skill === data.benchmarks[place] ? "own" : ""}` });
        if (difference !== null && stage !== base) {
          const look = shade(difference, scale);
          cell.style.background = look.background; cell.style.color = look.ink;
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
    const traces = [], shape = layout("updates over all stages", "training loss");
    shape.shapes = []; shape.annotations = []; shape.margin.t = 26;
    stages.forEach((stage, place) => {
      traces.push({ x: stage.updates.map((update) => start + update), y: stage.loss, mode: "lines", name: plain(stage.skill || ""), line: { width: 1.6, color: place % 2 ? "#d55e00" : "#0072b2" },
        text: stage.updates.map((update) => `${plain(stage.skill || "")}, update ${update}`), hovertemplate: "%{text}: %{y:.3f}<extra></extra>" });
      shape.annotations.push({ x: start, y: 1, yref: "paper", yanchor: "bottom", xanchor: "left", showarrow: false, text: compact() ? String(stage.number) : plain(stage.skill || ""), font: { size: 12, color: SOFT } });
      if (place) shape.shapes.push({ type: "line", x0: start, x1: start, y0: 0, y1: 1, yref: "paper", line: { color: "#aab2bd", width: 1, dash: "dot" } });
      start += stage.updates[stage.updates.length - 1];
    });
    Plotly.react("loss", traces, shape, { ...config, displayModeBar: false });
  }

  const columns = [
    { label: "", text: (trial) => trial.front ? "★" : "", value: (trial) => trial.front ? 1 : 0 },
    ...(varying.length ? varying : data.axes.filter((axis) => axis.values[0] !== "none")).map((axis) => ({ label: axis.label, text: (trial) => valueOf(trial, axis), value: (trial) => trial.axes[axisIndex[axis.name]], up: true })),
    ...data.measures.map((name, place) => ({ label: data.labels[name], number: true, value: (trial) => measure(trial, place),
      text: (trial) => points(measure(trial, place)), small: (trial) => { const ends = interval(trial, place); return ends && `${points(ends[0])} … ${points(ends[1])}`; } })),
    ...data.costs.map((name, place) => ({ label: data.labels[name], number: true, value: (trial) => trial.costs[place], text: (trial) => trial.costWords[place] })),
    { label: "state", text: (trial) => trial.reached, value: (trial) => trial.reached, up: true },
  ];

  function sorted(trials) {
    if (state.sort === null) return trials;
    const sign = state.down ? -1 : 1, value = columns[state.sort].value;
    return [...trials].sort((a, b) => {  // what is not known stays at the end
      const [left, right] = [value(a), value(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * (left < right ? -1 : left > right ? 1 : 0);
    });
  }

  function drawTable() {
    const table = by("trials"), head = make("tr"), body = make("tbody");
    columns.forEach((column, place) => {
      const cell = make("th", null, { scope: "col", class: column.number ? "number" : "" });
      if (place === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      const button = make("button", column.label || "★", { type: "button", title: `sort by ${column.label || "Pareto front"}` });
      button.onclick = () => {
        state.down = state.sort === place ? !state.down : !column.up;
        state.sort = place;
        drawTable();
      };
      cell.append(button);
      head.append(cell);
    });
    for (const trial of sorted(visible())) {
      const row = make("tr", null, { class: `${trial.state} ${trial === data.trials[state.trial] ? "chosen" : ""}`, title: trial.error ? `${trial.name}: ${trial.error}` : trial.name, tabindex: 0 });
      for (const column of columns) {
        const cell = make("td", column.text(trial), { class: column.number ? "number" : "" });
        const small = column.small && column.small(trial);
        if (small) cell.append(make("small", small));
        row.append(cell);
      }
      row.dataset.place = trial.place;
      row.onclick = () => choose(trial.place);
      row.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); row.onclick(); } };
      body.append(row);
    }
    const top = make("thead");
    top.append(head);
    table.replaceChildren(top, body);
  }

  function icon(symbol, colour) {
    const shapes = { circle: "M7 2a5 5 0 1 0 .01 0z", square: "M2.5 2.5h9v9h-9z", diamond: "M7 1l6 6-6 6-6-6z", "triangle-up": "M7 2l6 10H1z", "triangle-down": "M7 12L1 2h12z",
      star: "M7 1l1.8 4.1 4.4.4-3.3 3 1 4.4L7 10.600l-3.900 2.300 1-4.400-3.300-3 4.400-.4z", cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4z", x: "M3.500 1L7 4.500 10.500 1 13 3.500 9.500 7 13 10.500 10.500 13 7 9.500 3.500 13 1 10.500 4.500 7 1 3.500z",
      hexagon: "M4 2h6l3 5-3 5H4L1 7z", pentagon: "M7 1l6 4.500-2.300 7H3.300L1 5.500z", "triangle-right": "M2 1l10 6-10 6z", "triangle-left": "M12 1L2 7l10 6z" };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ width: 13, height: 13, viewBox: "0 0 14 14", "aria-hidden": "true" })) svg.setAttribute(name, value);
    path.setAttribute("d", shapes[symbol] || shapes.circle);
    path.setAttribute("fill", colour);
    svg.append(path);
    return svg;
  }

  function drawFilters() {
    for (const axis of varying) {
      const row = make("div", null, { class: "filter", role: "group", "aria-label": axis.label }), place = axisIndex[axis.name];
      row.append(make("span", axis.label));
      axis.values.forEach((value, index) => {
        const chip = make("button", null, { type: "button", class: "chip", "aria-pressed": "true", title: "show or hide; double-click, or Shift and Enter, shows this one alone" });
        if (axis === markerAxis) chip.append(icon(axis.symbols[index], SOFT));
        if (axis === colourAxis) chip.append(icon("circle", axis.colours[index]));
        chip.append(value);
        const apply = () => {
          [...row.querySelectorAll(".chip")].forEach((other, at) => other.setAttribute("aria-pressed", String(!off[place].has(at))));
          drawScatter(); drawCurves(); drawFirst(); drawProbes(); drawTable();
        };
        const alone = () => { off[place] = new Set(axis.values.map((_, at) => at).filter((at) => at !== index)); apply(); };
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

  function choose(place) {
    state.trial = place;
    by("trial").value = String(place);
    ring(); drawMatrix(); drawLoss();
    for (const row of by("trials").tBodies[0].rows) row.classList.toggle("chosen", Number(row.dataset.place) === place);
  }

  for (const [name, value] of whole.facts) {
    const line = make("div");
    line.append(make("dt", name), make("dd", value));
    by("facts").append(line);
  }
  by("bars").checked = data.trials.length <= 200;
  by("bars").onchange = drawScatter;
  if (data.trials.some(hollow)) by("hollow-note").textContent = "Hollow markers are trials with a mitigation.";
  by("measure").append(make("option", "held-out mean (points)", { value: "mean" }));
  for (const name of data.measures) by("measure").append(make("option", `${name.replace(/_/g, " ")} (points)`, { value: name }));
  for (const name of data.benchmarks) by("measure").append(make("option", `score on ${name} (points)`, { value: `score/${name}` }));
  for (const name of data.probes) by("measure").append(make("option", `probe ${name}`, { value: `probe/${name}` }));
  by("measure").onchange = () => { state.value = by("measure").value; drawCurves(); };
  data.trials.forEach((trial, place) => by("trial").append(make("option", `${trial.front ? "★ " : ""}${trial.name}${trial.state === "done" ? "" : ` (${trial.reached})`}`, { value: place })));
  by("trial").onchange = () => choose(Number(by("trial").value));
  for (const name of data.probes) by("probe").append(make("option", name, { value: name }));
  by("probe").onchange = drawProbes;
  for (const [id, key] of [["flips-trial", "name"], ["flips-benchmark", "benchmark"]]) {
    for (const name of new Set(whole.flips.map((each) => each[key]))) by(id).append(make("option", name, { value: name }));
    by(id).onchange = drawFlips;
  }
  by("flips-section").hidden = !whole.flips.length;
  by("seeds-control").hidden = whole.single === null;
  by("seeds").checked = eachSeed;
  by("seeds").onchange = () => { location.hash = by("seeds").checked ? "seeds" : ""; location.reload(); };
  by("budget").value = whole.advice.budget;
  by("budget").oninput = () => { drawAdvice(); drawScatter(); };
  by("caution").textContent = whole.advice.groups.length ? whole.advice.caution : "";
  drawAdvice(); drawFilters(); drawTable(); drawFlips(); drawScatter(); drawCurves();
  const first = whole.advice.groups.map((group) => group.choices.filter((choice) => choice.heldOut >= -whole.advice.budget).pop()).find(Boolean);
  choose(first && !eachSeed ? first.trial : 0); drawFirst(); drawProbes();
  for (const id of ["scatter", "curves", "probes"]) if (by(id).on) by(id).on("plotly_click", (event) => { const place = event.points[0].customdata; if (place !== undefined && place !== null) choose(place); });
  // paper is narrower than the screen: the plots take its width while it is printed
  const fit = (width) => ["scatter", "curves", "loss", "first", "probes"].filter((id) => by(id).data).forEach((id) => Plotly.relayout(id, width ? { autosize: false, width } : { autosize: true, width: null }));
  window.addEventListener("beforeprint", () => fit(690));
  window.addEventListener("afterprint", () => fit(null));
})();
