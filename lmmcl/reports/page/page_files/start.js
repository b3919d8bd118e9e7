// Fills the controls, draws everything once, and listens.

// The selected trial: what is text follows at once, charts of many trials a moment later.
function choose(place) {
  state.trial = place;
  by("trial").value = String(place);
  drawMatrix();
  drawLossTrials();
  drawCellTable();
  for (const table of ["trials", "heat"])
    for (const row of by(table).tBodies[0]?.rows ?? [])
      row.classList.toggle("chosen", Number(row.dataset.place) === place);
  drawSoon([ring, drawLoss, drawAlong, drawParallel]);
}

// The trials whose losses and answers are shown together: those the reader chose, or else the selected one.
const compared = () =>
  (state.compared.length ? state.compared : [state.trial]).map((place) => data.trials[place]).filter(Boolean);

for (const [name, value] of whole.facts) {
  const line = make("div");
  line.append(make("dt", name), make("dd", value));
  by("facts").append(line);
}
by("bars").checked = data.trials.length <= 200;
by("bars").onchange = drawScatter;
by("scatter").onkeydown = step;
if (data.trials.some(hollow)) by("hollow-note").textContent = "Hollow markers are trials with a mitigation.";
for (const name of data.measures)
  by("measure").append(make("option", `${name.replace(/_/g, " ")} (points)`, { value: name }));
for (const name of data.benchmarks)
  by("measure").append(make("option", `score on ${name} (points)`, { value: `score/${name}` }));
for (const name of data.probes) by("measure").append(make("option", `probe ${name}`, { value: `probe/${name}` }));
by("measure").value = state.value;
by("measure").onchange = () => {
  state.value = by("measure").value;
  drawCurves();
};
for (const [place, trial] of data.trials.entries()) {
  const reached = trial.state === "done" ? "" : ` (${trial.reached})`;
  by("trial").append(make("option", `${trial.front ? "★ " : ""}${trial.name}${reached}`, { value: place }));
}
by("trial").onchange = () => choose(Number(by("trial").value));
for (const name of data.probes) by("probe").append(make("option", name, { value: name }));
by("probe").onchange = drawProbes;
by("seeds-control").hidden = whole.single === null;
by("seeds").checked = eachSeed;
by("seeds").onchange = () => {
  location.hash = by("seeds").checked ? "seeds" : "";
  location.reload();
};
by("budget").value = whole.advice.budget;
by("budget").oninput = () => {
  drawAdvice();
  if (by("scatter").data) Plotly.relayout("scatter", { shapes: budgetLine() });
  drawAlong();
};
by("caution").textContent = whole.advice.groups.length ? whole.advice.caution : "";
startCells();
startAlong();
by("loss-add").append(make("option", "add a trial …", { value: "" }));
for (const [place, trial] of data.trials.entries()) by("loss-add").append(make("option", trial.name, { value: place }));
by("loss-add").onchange = () => {
  const place = Number(by("loss-add").value);
  if (by("loss-add").value !== "" && !state.compared.includes(place)) {
    if (!state.compared.length && place !== state.trial) state.compared.push(state.trial);
    state.compared = [...state.compared, place].slice(-MOST_LOSSES);
  }
  by("loss-add").value = "";
  drawLossTrials();
  drawLoss();
};
by("theme").value = remember();
if (by("theme").value) document.documentElement.dataset.theme = by("theme").value;

// Draws all of `list`: at once for a few trials; of many one after the other, so that the page answers in between.
let queue = [];
let working = false;
function drawSoon(list) {
  if (data.trials.length <= MANY || printing) {
    for (const draw of list) draw();
    return;
  }
  delete document.documentElement.dataset.drawn;
  queue = [...queue.filter((draw) => !list.includes(draw)), ...list];
  if (!working) setTimeout(work);
  working = true;
}
function work() {
  const draw = queue.shift();
  if (draw) {
    draw();
    setTimeout(work);
    return;
  }
  working = false;
  document.documentElement.dataset.drawn = "yes";
}

const FILTERED = [drawScatter, drawHeat, drawParallel, drawCurves, drawFirst, drawProbes, drawAlong, drawCells];
const drawCharts = () =>
  drawSoon([drawFilters, ...FILTERED, drawPair, drawSpread, drawMatrix, drawLoss, drawCellTable]);
// a click on a point selects its trial, wherever it is drawn
const listening = new Set();
function listen() {
  for (const id of ["scatter", "curves", "along", "first", "probes", "inside", "cells"]) {
    if (!by(id).on || listening.has(id)) continue;
    listening.add(id);
    by(id).on("plotly_click", (event) => {
      const place = event.points[0].customdata;
      if (place !== undefined && place !== null) choose(place);
    });
    if (id === "scatter") relabelOnZoom(id, () => labelScatter(...shownPoints()));
  }
}
startHeat();
startPair();
startParallel();
startSpread();
startAnswers();
drawAdvice();
drawFilters();
drawTable();
drawCosts();
const first = whole.advice.groups.map((group) => choiceUnder(group, whole.advice.budget)).find(Boolean);
state.trial = first && !eachSeed ? first.trial : 0;
drawSoon([drawScatter, drawCurves]);
choose(state.trial);
drawSoon([drawHeat, drawPair, drawSpread, drawCells, drawFirst, drawProbes, listen]);

// Light or dark: as the system has it, until the reader says otherwise.
function remember(theme) {
  try {
    if (theme === undefined) return localStorage.getItem("lmmcl-theme") || "";
    localStorage.setItem("lmmcl-theme", theme);
  } catch {
    // a browser that keeps nothing for files: the choice lasts as long as the page is open
  }
  return theme || "";
}
function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  drawCharts();
}
by("theme").onchange = () => paint(remember(by("theme").value));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts());
// A chart that was zoomed has other points in view: their names are placed again.
function relabelOnZoom(chart, draw) {
  if (!by(chart).on) return;
  by(chart).on("plotly_relayout", (change) => {
    if (!("annotations" in change) && Object.keys(change).some((key) => key.startsWith("xaxis."))) draw();
  });
}
let resized = 0;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawCharts, 200); // labels stand beside their points again
});
// paper is narrower than the screen, and white: the plots take its width and colours while it is printed
const PLOTS = ["scatter", "pair", "spread", "curves", "along", "loss", "first", "probes", "inside", "cells"];
function fit(width) {
  printing = width !== null;
  drawCharts();
  const layout = width ? { autosize: false, width } : { autosize: true, width: null };
  for (const id of PLOTS) if (by(id).data) Plotly.relayout(id, layout);
}
window.addEventListener("beforeprint", () => fit(690));
window.addEventListener("afterprint", () => fit(null));
if (!working) document.documentElement.dataset.drawn = "yes";
