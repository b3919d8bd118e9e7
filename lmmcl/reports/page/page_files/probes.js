// A probe against held-out forgetting, a point for each stage.

function drawProbes() {
  by("probe-section").hidden = !data.probes.length;
  if (!data.probes.length) return;
  const place = data.probes.indexOf(by("probe").value);
  const traces = grouped(visible(), (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map(
    (group) => {
      const trace = {
        x: [],
        y: [],
        text: [],
        customdata: [],
        mode: "markers",
        hovertemplate: "%{text}<br>%{x:.4~g}: %{y:+.1f}<extra></extra>",
        marker: {
          size: 9,
          color: colourOf(group[0]),
          symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : ""),
        },
      };
      const around = [];
      for (const trial of group)
        for (const stage of trial.stages) {
          if (!stage.number || stage.probes[place] === null || stage.measures[HELD_OUT] === null) continue;
          trace.x.push(stage.probes[place]);
          trace.y.push(stage.measures[HELD_OUT]);
          around.push(ends(stage, HELD_OUT));
          trace.customdata.push(trial.place);
          trace.text.push(`<b>${plain(trial.name)}</b><br>after ${plain(stage.skill || "")}`);
        }
      trace.error_y = { ...armsOf(trace.y, around), color: colourOf(group[0]), visible: visible().length <= MANY / 4 };
      return trace;
    },
  );
  by("probe-note").textContent = data.correlations[by("probe").value] || "";
  Plotly.react("probes", traces, layout(plain(by("probe").value), LOST()), config);
  drawInside();
}
// A probe inside stages: its value against the updates of a trial, one stage after the other.

function drawInside() {
  const place = data.probes.indexOf(by("probe").value),
    has = (stage) => stage.inside !== null && place in stage.inside.values;
  const trials = visible().filter((trial) => trial.stages.some(has));
  by("inside-figure").hidden = !trials.length;
  if (!trials.length) return;
  const traces = byImportance(trials).map((trial) => {
    const trace = {
      x: [],
      y: [],
      text: [],
      customdata: [],
      mode: "lines+markers",
      hovertemplate: "%{text}: %{y:.4~g}<extra></extra>",
      line: { color: colourOf(trial), width: 1.5, dash: dashOf(trial) },
      marker: { size: 6, color: colourOf(trial), symbol: symbolOf(trial) + (hollow(trial) ? "-open" : "") },
    };
    let before = 0; // updates of the stages before
    for (const stage of trial.stages) {
      if (has(stage))
        stage.inside.updates.forEach((update, at) => {
          if (stage.inside.values[place][at] === null) return;
          trace.x.push(before + update);
          trace.y.push(stage.inside.values[place][at]);
          trace.customdata.push(trial.place);
          trace.text.push(`<b>${plain(trial.name)}</b><br>update ${update} of ${plain(stage.skill || "")}`);
        });
      before += stage.updates.length ? stage.updates[stage.updates.length - 1] : 0;
    }
    return trace;
  });
  const shape = layout("updates, over all stages", plain(by("probe").value));
  drawWithEnds("inside", traces, byImportance(trials), shape, config);
}
// A chart of a line for each of `trials` (a trace each), with their names at its right.
function drawWithEnds(chart, traces, trials, shape, settings) {
  const room = endRoom(
    chart,
    trials.map((trial) => trial.short),
  );
  shape.margin.r = room.margin;
  Plotly.react(chart, traces, shape, settings);
  const lines = traces.flatMap((trace, at) => {
    const end = trace.x.length - 1;
    return end < 0 ? [] : { x: trace.x[end], y: trace.y[end], text: trials[at].short, colour: trace.line.color };
  });
  labelEnds(chart, lines, room.letters);
}
// Images × texts like what was taught (id) or not (ood): where the models changed.

const GRID = [
  ["id", "id"],
  ["ood", "id"],
  ["id", "ood"],
  ["ood", "ood"],
]; // (image, text), as the report lists them
const celled = (trial) => trial.stages.filter((stage) => stage.cells.length);

// The stage that the reader chose; of a trial that has not reached it, none.
function cellsOf(trial) {
  const stages = celled(trial),
    wanted = by("cells-stage").value;
  const stage = wanted === "last" ? stages[stages.length - 1] : stages.find((each) => String(each.number) === wanted);
  return stage ? stage.cells : [];
}

function drawCells() {
  const any = data.trials.some((trial) => celled(trial).length);
  by("cells-section").hidden = !any;
  if (!any) return;
  const trials = visible().filter((trial) => cellsOf(trial).length),
    apart = 0.7 / Math.max(1, trials.length);
  const seat = new Map(trials.map((trial, rank) => [trial.place, (rank - (trials.length - 1) / 2) * apart]));
  const traces = grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()).map((group) => {
    const trace = {
      x: [],
      y: [],
      text: [],
      customdata: [],
      mode: "markers",
      hovertemplate: "%{text}<extra></extra>",
      marker: { size: 10, color: colourOf(group[0]), symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : "") },
      error_y: {
        type: "data",
        symmetric: false,
        array: [],
        arrayminus: [],
        thickness: 1,
        width: 0,
        color: colourOf(group[0]),
        visible: trials.length <= 60,
      },
    };
    for (const trial of group)
      cellsOf(trial).forEach((cell, at) => {
        if (cell.change === null) return;
        trace.x.push(at + seat.get(trial.place));
        trace.y.push(cell.change);
        trace.customdata.push(trial.place);
        trace.error_y.array.push(cell.high - cell.change);
        trace.error_y.arrayminus.push(cell.change - cell.low);
        trace.text.push(
          `<b>${plain(trial.name)}</b><br>image ${GRID[at][0]}, text ${GRID[at][1]}: ${points(cell.change)} [${points(cell.low)}, ${points(cell.high)}]`,
        );
      });
    return trace;
  });
  const shape = layout("", "change (points)");
  shape.margin.t = 12;
  Object.assign(shape.xaxis, {
    range: [-0.5, 3.5],
    tickvals: [0, 1, 2, 3],
    ticktext: GRID.map(([image, text]) => `image ${image}${compact() ? "<br>" : ", "}text ${text}`),
    showgrid: false,
    zeroline: false,
  });
  shape.shapes = [0.5, 1.5, 2.5].map((x) => upright(x, look().line));
  Plotly.react("cells", traces, shape, still);
}

// The four cells of the trial that is selected, as rows of texts and columns of images.
function drawCellTable() {
  const trial = data.trials[state.trial],
    table = by("cells-table"),
    found = trial ? cellsOf(trial) : [];
  table.replaceChildren();
  if (!found.length) return;
  const scale = Math.max(10, ...found.map((cell) => Math.abs(cell.change || 0))),
    head = make("tr"),
    body = make("tbody");
  table.append(make("caption", trial.name), head);
  head.append(
    make("th", ""),
    make("th", "images like the taught", { scope: "col" }),
    make("th", "other images", { scope: "col" }),
  );
  for (const [text, title] of [
    ["id", "texts like the taught"],
    ["ood", "other texts"],
  ]) {
    const row = make("tr");
    row.append(make("th", title, { scope: "row" }));
    for (const image of ["id", "ood"]) {
      const cell = found[GRID.findIndex((each) => each[0] === image && each[1] === text)],
        box = make("td", points(cell.change));
      if (cell.change !== null) {
        const { background, ink } = shade(cell.change, scale);
        box.style.background = background;
        box.style.color = ink;
        box.append(
          make("small", `${points(cell.low)} … ${points(cell.high)}`),
          make("small", cell.benchmarks.map((place) => data.benchmarks[place]).join(", "), { class: "names" }),
        );
      } else {
        box.append(make("small", "no benchmark"));
      }
      row.append(box);
    }
    body.append(row);
  }
  table.append(body);
}

function startCells() {
  const numbers = [...new Set(data.trials.flatMap((trial) => celled(trial).map((stage) => stage.number)))].sort(
    (a, b) => a - b,
  );
  by("cells-stage").append(
    make("option", "the last stage", { value: "last" }),
    ...numbers.map((number) => make("option", `stage ${number}`, { value: number })),
  );
  by("cells-stage").onchange = () => {
    drawCells();
    drawCellTable();
  };
}
// Learning against held-out forgetting along a stage: a line for each trial, with its best moment under the reader's budget.

const MOST_WITH_ARMS = 16; // lines up to which each has the intervals of its moments
const along = (trial) => trial.stages.filter((stage) => stage.along);

function alongOf(trial) {
  return along(trial).find((stage) => String(stage.number) === by("along-stage").value);
}

// The report lists the moments to choose from by the budget that they need.
function bestMoment(stage) {
  const allowed = stage.along.front.filter((each) => each[0] <= Number(by("budget").value));
  return allowed.length ? allowed[allowed.length - 1][1] : null;
}

function drawAlong() {
  const any = data.trials.some((trial) => along(trial).length);
  by("along-section").hidden = !any;
  if (!any) return;
  const trials = byImportance(visible().filter(alongOf)),
    few = trials.length <= MOST_WITH_ARMS,
    { ink } = look();
  const traces = trials.map((trial) => {
    const stage = alongOf(trial),
      best = bestMoment(stage),
      chosen = trial.place === state.trial;
    return {
      x: stage.along.learning,
      y: stage.along.heldOut,
      customdata: stage.along.updates.map(() => trial.place),
      text: stage.along.updates.map(
        (update, at) =>
          `<b>${plain(trial.name)}</b><br>after ${update} updates of ${plain(stage.skill || "")}` +
          `<br>learning ${alongRange(stage, "learning", at)}<br>held-out forgetting ${alongRange(stage, "heldOut", at)}` +
          (at === best ? "<br>best within the budget" : ""),
      ),
      mode: "lines+markers",
      hovertemplate: "%{text}<extra></extra>",
      line: { color: chosen ? ink : colourOf(trial), width: chosen ? 3 : 1.4, dash: dashOf(trial) },
      marker: {
        size: stage.along.updates.map((_, at) => (at === best ? 13 : 6)),
        color: chosen ? ink : colourOf(trial),
        symbol: symbolOf(trial) + (hollow(trial) ? "-open" : ""),
      },
      ...(few || chosen ? momentArms(stage, chosen ? ink : pale(colourOf(trial))) : {}),
    };
  });
  const told = alongOf(data.trials[state.trial] || { stages: [] }),
    at = told ? bestMoment(told) : null;
  by("along-note").textContent = !told
    ? ""
    : at === null
      ? `${data.trials[state.trial].name}: no moment keeps within the budget.`
      : `${data.trials[state.trial].name}: best after ${told.along.updates[at]} updates, learning ${alongRange(told, "learning", at)}, held-out forgetting ${alongRange(told, "heldOut", at)}.`;
  const shape = layout("learning (points)", LOST());
  drawWithEnds("along", traces, trials, shape, config);
}

// So that the points stay in sight where intervals cross.
const pale = (colour) => `${colour}70`;

// The intervals of every moment, on both axes.
function momentArms(stage, color) {
  const { learning, heldOut, learningEnds, heldOutEnds } = stage.along;
  return {
    error_x: { ...armsOf(learning, learningEnds), color },
    error_y: { ...armsOf(heldOut, heldOutEnds), color },
  };
}

const alongRange = (stage, name, at) => range(stage.along[name][at], stage.along[`${name}Ends`][at]);

function startAlong() {
  const skills = new Map(data.trials.flatMap((trial) => along(trial).map((stage) => [stage.number, stage.skill])));
  const orders = new Set(data.trials.map((trial) => JSON.stringify(trial.skills)));
  for (const number of [...skills.keys()].sort((a, b) => a - b)) {
    const name = orders.size === 1 ? `${number} ${skills.get(number)}` : `stage ${number}`;
    by("along-stage").append(make("option", name, { value: number }));
  }
  by("along-stage").onchange = drawAlong;
}
