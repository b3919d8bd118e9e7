// Fills the controls, draws everything once, and listens.

function choose(place) {
  state.trial = place;
  by("trial").value = String(place);
  ring();
  drawMatrix();
  drawLoss();
  drawCellTable();
  drawAlong();
  for (const row of by("trials").tBodies[0].rows) row.classList.toggle("chosen", Number(row.dataset.place) === place);
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
for (const [id, key] of [
  ["flips-trial", "name"],
  ["flips-benchmark", "benchmark"],
]) {
  for (const name of new Set(whole.flips.map((each) => each[key])))
    by(id).append(make("option", name, { value: name }));
  by(id).onchange = drawFlips;
}
by("flips-section").hidden = !whole.flips.length;
by("seeds-control").hidden = whole.single === null;
by("seeds").checked = eachSeed;
by("seeds").onchange = () => {
  location.hash = by("seeds").checked ? "seeds" : "";
  location.reload();
};
by("budget").value = whole.advice.budget;
by("budget").oninput = () => {
  drawAdvice();
  drawScatter();
  drawAlong();
};
by("caution").textContent = whole.advice.groups.length ? whole.advice.caution : "";
startCells();
startAlong();
by("theme").value = remember();
if (by("theme").value) document.documentElement.dataset.theme = by("theme").value;
drawAdvice();
drawFilters();
drawTable();
drawFlips();
drawCosts();
// What has colours is drawn again where these change.
function drawCharts() {
  for (const draw of [drawFilters, drawScatter, drawCurves, drawCells, drawFirst, drawProbes, drawAlong]) draw();
  for (const draw of [drawMatrix, drawLoss, drawCellTable]) draw();
}
drawScatter();
drawCurves();
drawCells();
const first = whole.advice.groups.map((group) => choiceUnder(group, whole.advice.budget)).find(Boolean);
choose(first && !eachSeed ? first.trial : 0);
drawFirst();
drawProbes();
for (const id of ["scatter", "curves", "along", "first", "probes", "inside", "cells"])
  if (by(id).on)
    by(id).on("plotly_click", (event) => {
      const place = event.points[0].customdata;
      if (place !== undefined && place !== null) choose(place);
    });
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
relabelOnZoom("scatter", () => labelScatter(...shownPoints()));
let resized = 0;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawCharts, 200); // labels stand beside their points again
});
// paper is narrower than the screen, and white: the plots take its width and colours while it is printed
const PLOTS = ["scatter", "curves", "along", "loss", "first", "probes", "inside", "cells"];
function fit(width) {
  printing = width !== null;
  drawCharts();
  const layout = width ? { autosize: false, width } : { autosize: true, width: null };
  for (const id of PLOTS) if (by(id).data) Plotly.relayout(id, layout);
}
window.addEventListener("beforeprint", () => fit(690));
window.addEventListener("afterprint", () => fit(null));
document.documentElement.dataset.drawn = "yes";
