// Which trial to take under the reader's budget, from the choices that the report has made.

// The last choice that a budget allows: they are in the order of what is learnt, and the report says what each costs.
function choiceUnder(group, allowed) {
  return group.choices.filter((choice) => choice.leastBudget <= allowed).pop();
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
      pick.append("Take ", name(choice), ".");
      box.append(...choice.lines.map((line) => make("p", line)));
      if (choice.sureBudget !== null && allowed < choice.sureBudget) box.append(make("p", choice.risk));
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
// After one skill: bars of learning and of held-out forgetting.

// Bars of the first stage: markers' axis along x, colours' axis side by side.
function drawFirst() {
  const trials = visible().filter((trial) => trial.stages.some((stage) => stage.number === 1));
  const names = markerAxis.values.map(plain),
    mean = (list) => (list.length ? list.reduce((sum, value) => sum + value, 0) / list.length : null);
  const traces = [];
  colourAxis.values.forEach((value, at) => {
    const of = (name, place) =>
      mean(
        trials
          .filter((trial) => trial.axes[axisIndex[data.colour]] === at && trial.axes[axisIndex[data.marker]] === name)
          .map((trial) => trial.stages.find((stage) => stage.number === 1).measures[place])
          .filter((found) => found !== null),
      );
    for (const [place, yaxis] of [
      [LEARNING, "y"],
      [HELD_OUT, "y2"],
    ]) {
      const y = names.map((_, name) => of(name, place));
      if (y.some((found) => found !== null))
        traces.push({
          type: "bar",
          x: names,
          y,
          yaxis,
          marker: { color: colourAxis.colours[at], line: { color: "#fff", width: 0.5 } },
          hovertemplate: `%{x}<br>${plain(colourAxis.label)}: ${plain(value)}<br>%{y:+.1f}<extra></extra>`,
        });
    }
  });
  const shape = layout("", "learning");
  Object.assign(shape, { barmode: "group", bargap: 0.25 });
  Object.assign(shape.xaxis, { type: "category", anchor: "y2" });
  shape.yaxis.domain = [0.54, 1];
  shape.yaxis2 = {
    ...shape.yaxis,
    domain: [0, 0.46],
    title: { text: "held-out forg. (below 0: forgot)", standoff: 8 },
  };
  by("first").closest("section").hidden = !traces.length;
  if (traces.length) Plotly.react("first", traces, shape, config);
}
