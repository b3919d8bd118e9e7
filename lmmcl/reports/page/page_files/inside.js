// A probe inside stages: its value against the updates of a trial, one stage after the other.

function drawInside() {
  const place = data.probes.indexOf(by("probe").value),
    has = (stage) => stage.inside !== null && place in stage.inside.values;
  const trials = visible().filter((trial) => trial.stages.some(has));
  by("inside-figure").hidden = !trials.length;
  if (!trials.length) return;
  const traces = trials.map((trial) => {
    const trace = {
      x: [],
      y: [],
      text: [],
      customdata: [],
      mode: "lines+markers",
      hovertemplate: "%{text}: %{y:.4~g}<extra></extra>",
      line: { color: colourOf(trial), width: 1.5 },
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
  Plotly.react("inside", traces, layout("updates, over all stages", plain(by("probe").value)), config);
}
