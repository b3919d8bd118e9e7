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
const state = { trial: 0, value: "held_out_forgetting", sort: null, down: true, compared: [] };
const MANY = 60; // trials above which charts show intervals of chosen trials alone, and are drawn one after the other

const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
// plotly reads a little markup in its labels
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
// One digit after the point as Python rounds it: what is exactly between two goes to the even one.
function tenth(value) {
  const between = Number.isInteger(value * 4) && !Number.isInteger(value * 2);
  const down = Math.floor(value * 10);
  const text = between ? ((down % 2 === 0 ? down : down + 1) / 10).toFixed(1) : value.toFixed(1);
  return Number(text) === 0 ? "0.0" : text; // what rounds to -0 has no minus
}
const points = (value) => {
  if (value === null || value === undefined) return "–";
  const text = tenth(value);
  return (text.startsWith("-") ? "" : "+") + text;
};
const range = (value, ends) => `${points(value)}${ends ? ` [${points(ends[0])}, ${points(ends[1])}]` : ""}`;
const last = (trial) => trial.stages[trial.stages.length - 1];
const measure = (trial, place) => (last(trial) ? last(trial).measures[place] : null);
const ends = (stage, place) => (stage && stage.intervals[place].length === 2 ? stage.intervals[place] : null);
const interval = (trial, place) => ends(last(trial), place);
const axisValue = (trial, axis) => axis.values[trial.axes[axisIndex[axis.name]]];
const colourOf = (trial) => colourAxis.colours[night() ? 1 : 0][trial.axes[axisIndex[data.colour]]];
const symbolOf = (trial) => markerAxis.symbols[trial.axes[axisIndex[data.marker]]];
const dashOf = (trial) => data.dashes[trial.axes[axisIndex[data.colour]] % data.dashes.length];
const hollow = (trial) => trial.mitigated && data.marker !== "mitigation" && data.colour !== "mitigation";
const visible = () => data.trials.filter((trial) => trial.axes.every((value, axis) => !off[axis].has(value)));
const varying = data.axes.filter((axis) => axis.values.length > 1);
const compact = () => window.matchMedia("(max-width: 640px)").matches;

// The interval of a score in points, as the report has it: Wilson's of shares of right answers, else what the report has computed.
const scoreEnds = (stage, place) => stage.scoreIntervals?.[place] ?? wilson(stage, place);
const scoreRange = (score, around) => `${tenth(score)}${around ? ` [${around.map(tenth).join(", ")}]` : ""}`;

function wilson(stage, place) {
  const questions = stage.counts[place],
    share = stage.scores[place] / 100;
  if (!data.shares[place] || !questions || stage.scores[place] === null) return null;
  const z = 1.959963984540054,
    spread = (z * z) / questions;
  const centre = (share + spread / 2) / (1 + spread),
    reach = (z / (1 + spread)) * Math.sqrt((share * (1 - share)) / questions + spread / (4 * questions));
  return [100 * Math.max(0, centre - reach), 100 * Math.min(1, centre + reach)];
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

// Colours of the page on light and dark ground; the report chooses those of trials.
const LOOKS = [
  { ink: "#1b1f24", soft: "#5b6470", line: "#e4e8ed", zero: "#8a929d", ground: "#ffffff", budget: "#a03070" },
  { ink: "#e8ebef", soft: "#a7b0bb", line: "#2c333c", zero: "#727c88", ground: "#14181d", budget: "#f08cc0" },
];
let printing = false;
const night = () => {
  const chosen = document.documentElement.dataset.theme;
  if (printing) return false;
  return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
};
const look = () => LOOKS[night() ? 1 : 0];

// Black or white, whichever is read better on a colour given as channels.
function inkOn(channels) {
  const [red, green, blue] = channels.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

// The ground of a cell that is so far below (orange) or above (blue) what it is compared with.
function shade(difference, scale) {
  const part = Math.min(1, Math.abs(difference) / scale),
    end = difference < 0 ? [217, 101, 27] : [42, 120, 184],
    start = night() ? [27, 32, 39] : [255, 255, 255];
  const mixed = end.map((channel, at) => Math.round(start[at] + (channel - start[at]) * part));
  return { background: `rgb(${mixed.join()})`, ink: inkOn(mixed) };
}
