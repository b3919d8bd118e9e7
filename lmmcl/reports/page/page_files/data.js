// What the page is drawn from (the JSON in #data), and how its values are read. Strings of the sweep become text nodes, or pass plain().

const whole = JSON.parse(document.getElementById("data").textContent);
const eachSeed = location.hash === "#seeds" && whole.single !== null;
const data = eachSeed ? whole.single : whole;
data.trials.forEach((trial, place) => {
  trial.place = place;
});
const by = (id) => document.getElementById(id);
const axisIndex = Object.fromEntries(data.axes.map((axis, place) => [axis.name, place]));
const colourAxis = data.axes[axisIndex[data.colour]],
  markerAxis = data.axes[axisIndex[data.marker]];
const LEARNING = data.measures.indexOf("learning"),
  HELD_OUT = data.measures.indexOf("held_out_forgetting");
const off = data.axes.map(() => new Set()); // for each axis, the values that are filtered out
const state = { trial: 0, value: "mean", sort: null, down: true };
const INK = "#1b1f24",
  SOFT = "#5b6470",
  LINE = "#e4e8ed";

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
  const rounded = Math.round(value * 10) / 10 + 0; // + 0: what rounds to -0 has no minus
  return (rounded < 0 ? "" : "+") + rounded.toFixed(1);
};
const last = (trial) => trial.stages[trial.stages.length - 1];
const measure = (trial, place) => (last(trial) ? last(trial).measures[place] : null);
const interval = (trial, place) =>
  last(trial) && last(trial).intervals[place].length === 2 ? last(trial).intervals[place] : null;
const axisValue = (trial, axis) => axis.values[trial.axes[axisIndex[axis.name]]];
const colourOf = (trial) => colourAxis.colours[trial.axes[axisIndex[data.colour]]];
const symbolOf = (trial) => markerAxis.symbols[trial.axes[axisIndex[data.marker]]];
const hollow = (trial) => trial.mitigated && data.marker !== "mitigation" && data.colour !== "mitigation";
const visible = () => data.trials.filter((trial) => trial.axes.every((value, axis) => !off[axis].has(value)));
const varying = data.axes.filter((axis) => axis.values.length > 1);
const compact = () => window.matchMedia("(max-width: 640px)").matches;

function grouped(trials, key) {
  const groups = new Map();
  for (const trial of trials) {
    const name = key(trial);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(trial);
  }
  return [...groups.values()];
}
