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
  shape.yaxis2 = { ...shape.yaxis, domain: [0, 0.46], title: { text: "held-out forg.", standoff: 8 } };
  by("first").closest("section").hidden = !traces.length;
  if (traces.length) Plotly.react("first", traces, shape, config);
}
