// Trials by benchmarks as a heat map that sorts: scores after a stage, or what changed since before the first.

const ROWS = 40; // rows of a long table at a time
const heat = { sort: null, down: true, from: 0 };

// Previous and next for a long table: `move` is called with the first row to show.
function pager(box, from, size, total, move) {
  box.replaceChildren();
  if (total <= size) return;
  const button = (text, to, name) => {
    const made = make("button", text, { type: "button", class: "plain", "aria-label": name });
    made.disabled = to < 0 || to >= total;
    made.onclick = () => move(to);
    return made;
  };
  box.append(
    button("← previous", from - size, "previous rows"),
    make("span", `${from + 1}–${Math.min(total, from + size)} of ${total}`),
    button("next →", from + size, "next rows"),
  );
}

// What is known stands before what is not, whichever way the rest is sorted.
function bySize(values, down) {
  return values
    .map((_, at) => at)
    .sort((a, b) => {
      const [left, right] = [values[a], values[b]];
      if (left === null || right === null) return (left === null) - (right === null) || a - b;
      return (left < right ? -1 : left > right ? 1 : 0) * (down ? -1 : 1) || a - b;
    });
}

function sortButton(text, isSorted, down, sort) {
  const cell = make("th", null, { scope: "col" });
  if (isSorted) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  const button = make("button", text, { type: "button", title: `sort by ${text}` });
  button.onclick = sort;
  cell.append(button);
  return cell;
}

function heatStage(trial) {
  const wanted = by("heat-stage").value;
  return wanted === "last" ? last(trial) : trial.stages.find((stage) => String(stage.number) === wanted);
}

// The score of a trial on a benchmark, or its change since before the first stage; null where it is not known.
function heatValue(trial, place) {
  const stage = heatStage(trial),
    base = trial.stages.find((each) => each.number === 0);
  const score = stage?.scores[place] ?? null;
  if (by("heat-value").value === "score" || score === null) return score;
  const before = base?.scores[place] ?? null;
  return before === null ? null : score - before;
}

function heatColumns(trials) {
  const taught = new Set(trials.flatMap((trial) => trial.skills));
  const used = data.benchmarks
    .map((_, place) => place)
    .filter((place) => trials.some((trial) => heatValue(trial, place) !== null));
  return [
    ...used.filter((place) => taught.has(data.benchmarks[place])),
    ...used.filter((place) => !taught.has(data.benchmarks[place])),
  ];
}

// The ground of a score between 0 and 100: more is darker (on dark ground lighter).
function scoreShade(score) {
  const part = Math.min(1, Math.max(0, score / 100)),
    start = night() ? [27, 32, 39] : [255, 255, 255],
    end = night() ? [110, 190, 250] : [10, 70, 130];
  const mixed = end.map((channel, at) => Math.round(start[at] + (channel - start[at]) * part));
  return { background: `rgb(${mixed.join()})`, ink: inkOn(mixed) };
}

function drawHeat() {
  const trials = visible().filter((trial) => trial.stages.length),
    columns = heatColumns(trials);
  by("heat-section").hidden = !columns.length;
  if (!columns.length) return;
  const values = trials.map((trial) => columns.map((place) => heatValue(trial, place)));
  const change = by("heat-value").value === "change";
  const scale = values.reduce((most, row) => row.reduce((far, value) => Math.max(far, Math.abs(value || 0)), most), 10);
  const sorted = columns.indexOf(heat.sort);
  const order =
    sorted < 0
      ? trials.map((_, at) => at)
      : bySize(
          values.map((row) => row[sorted]),
          heat.down,
        );
  if (heat.from >= order.length) heat.from = 0;
  const head = make("tr"),
    body = make("tbody");
  head.append(make("th", "trial", { scope: "col", class: "side" }));
  columns.forEach((place) => {
    head.append(
      sortButton(data.benchmarks[place], place === heat.sort, heat.down, () => {
        heat.down = heat.sort === place ? !heat.down : true;
        heat.sort = place;
        heat.from = 0;
        drawHeat();
      }),
    );
  });
  for (const at of order.slice(heat.from, heat.from + ROWS)) {
    const trial = trials[at],
      row = make("tr"),
      name = make("th", null, { scope: "row", class: "side" });
    const button = make("button", trial.short, { type: "button", title: `${trial.name}: show this trial` });
    button.onclick = () => choose(trial.place);
    name.append(button);
    row.dataset.place = trial.place;
    if (trial.place === state.trial) row.classList.add("chosen");
    row.append(name, ...values[at].map((value, column) => heatCell(value, change, scale, trial, columns[column])));
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  by("heat").replaceChildren(top, body);
  pager(by("heat-pager"), heat.from, ROWS, order.length, (to) => {
    heat.from = to;
    drawHeat();
  });
}

function heatCell(value, change, scale, trial, place) {
  const cell = make("td", value === null ? "–" : change ? points(value) : tenth(value));
  if (value === null) return cell;
  cell.title = [trial.stages.find((stage) => stage.number === 0), heatStage(trial)]
    .filter((stage, at, both) => stage?.scores[place] != null && both.indexOf(stage) === at)
    .map(
      (stage) =>
        `${stage.number ? `after stage ${stage.number}` : "before"}: ${scoreRange(stage.scores[place], scoreEnds(stage, place))}`,
    )
    .join("; ");
  const { background, ink } = change ? shade(value, scale) : scoreShade(value);
  cell.style.background = background;
  cell.style.color = ink;
  return cell;
}

function startHeat() {
  const numbers = [...new Set(data.trials.flatMap((trial) => trial.stages.map((stage) => stage.number)))].sort(
    (a, b) => a - b,
  );
  by("heat-stage").append(
    make("option", "the last stage", { value: "last" }),
    ...numbers.map((number) =>
      make("option", number ? `stage ${number}` : "before the first stage", { value: number }),
    ),
  );
  for (const id of ["heat-stage", "heat-value"])
    by(id).onchange = () => {
      heat.from = 0;
      drawHeat();
    };
}
