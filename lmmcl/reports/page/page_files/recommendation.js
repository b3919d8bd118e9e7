// Which trial to take under the reader's budget, from the choices that the report has made.

// The last choice that a budget allows: they are in the order of what is learnt, and the report says what each costs.
function choiceUnder(group, allowed) {
  return group.choices.filter((choice) => choice.leastBudget <= allowed).pop();
}

// What is within noise of a choice, and how the others of its front compare with it.
function noiseList(choice) {
  const list = make("ul");
  list.append(...choice.lines.slice(1).map((line) => make("li", line)));
  const own = whole.pairs.trials.findIndex((trial) => trial.key === choice.key);
  whole.pairs.trials.forEach((trial, other) => {
    const pair = own < 0 || own === other || !trial.front ? null : pairOf(own, other);
    if (pair) list.append(make("li", `Compared with it, ${pair.text.replace(/^The second/, trial.short)}`));
  });
  return list;
}

function drawAdvice() {
  const box = by("advice-text"),
    groups = whole.advice.groups,
    allowed = budget() === null ? Infinity : budget();
  box.replaceChildren();
  for (const group of groups) {
    const choice = choiceUnder(group, allowed),
      most = group.choices[group.choices.length - 1];
    const pick = make("p", groups.length > 1 ? `${group.model}: ` : "", { class: "pick" });
    const name = (each) => {
      if (eachSeed) return make("strong", each.name);
      const button = make("button", each.name, { type: "button", title: "show this trial" });
      button.onclick = () => choose(each.trial);
      return button;
    };
    box.append(pick);
    if (choice) {
      const why =
        allowed === Infinity ? "it learns most" : `of those that lose at most ${allowed} points it learns most`;
      pick.append("Take ", name(choice), `: ${why}. ${choice.lines[0]}`);
      if (choice.sureBudget !== null && allowed < choice.sureBudget) box.append(make("p", choice.risk));
      box.append(make("h3", "What differs, and what is noise"), noiseList(choice));
    } else {
      pick.append(`No finished trial keeps within this budget; the least is lost by ${group.least}.`);
    }
    const front = make("p", "On the front, from the least learnt to the most: ");
    group.choices.forEach((each, place) => {
      front.append(...(place ? [" → "] : []), name(each));
    });
    box.append(front);
    if (choice !== most) front.append(`. Without a budget ${most.name} learns most.`);
  }
  by("advice").hidden = !groups.length;
}
// After one skill: each trial with its interval, in learning and in held-out forgetting; recipes (say) side by side.

function drawFirst() {
  const of = (trial) => trial.stages.find((stage) => stage.number === 1);
  const trials = visible().filter((trial) => of(trial)),
    axis = axisIndex[data.marker];
  const names = markerAxis.values.map((_, at) => at).filter((at) => trials.some((trial) => trial.axes[axis] === at));
  const seat = new Map();
  names.forEach((value, group) => {
    const members = trials
      .filter((trial) => trial.axes[axis] === value)
      .sort((a, b) => a.axes[axisIndex[data.colour]] - b.axes[axisIndex[data.colour]]);
    members.forEach((trial, rank) => {
      seat.set(trial.place, group + ((rank + 0.5) / members.length - 0.5) * 0.8);
    });
  });
  const traces = [];
  for (const group of grouped(trials, (trial) => [colourOf(trial), symbolOf(trial), hollow(trial)].join()))
    for (const [place, yaxis] of [
      [LEARNING, "y"],
      [HELD_OUT, "y2"],
    ]) {
      const y = group.map((trial) => of(trial).measures[place]);
      const found = group.map((trial) => ends(of(trial), place));
      traces.push({
        x: group.map((trial) => seat.get(trial.place)),
        y,
        yaxis,
        mode: "markers",
        customdata: group.map((trial) => trial.place),
        text: group.map((trial, at) => `<b>${plain(trial.name)}</b><br>${range(y[at], found[at])}`),
        hovertemplate: "%{text}<extra></extra>",
        marker: { size: 9, color: colourOf(group[0]), symbol: symbolOf(group[0]) + (hollow(group[0]) ? "-open" : "") },
        error_y: { ...armsOf(y, found), color: colourOf(group[0]), visible: trials.length <= MANY },
      });
    }
  const shape = layout("", "learning");
  Object.assign(shape.xaxis, {
    range: [-0.55, names.length - 0.45],
    tickvals: names.map((_, at) => at),
    ticktext: names.map((at) => plain(cut(markerAxis.values[at], compact() ? 12 : 40))),
    anchor: "y2",
    showgrid: false,
    zeroline: false,
  });
  shape.margin.t = 12;
  shape.yaxis.domain = [0.54, 1];
  shape.yaxis.title.font = { size: 12 };
  shape.yaxis2 = {
    ...shape.yaxis,
    domain: [0, 0.46],
    title: { text: "held-out forg.", standoff: 8, font: { size: 12 } },
  };
  shape.shapes = names.slice(1).map((_, at) => upright(at + 0.5, look().line));
  by("first").closest("section").hidden = !traces.length;
  if (traces.length) Plotly.react("first", traces, shape, still);
}
