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
          opacity: 0.8,
        },
      };
      for (const trial of group)
        for (const stage of trial.stages) {
          if (!stage.number || stage.probes[place] === null || stage.measures[HELD_OUT] === null) continue;
          trace.x.push(stage.probes[place]);
          trace.y.push(stage.measures[HELD_OUT]);
          trace.customdata.push(trial.place);
          trace.text.push(`<b>${plain(trial.name)}</b><br>after ${plain(stage.skill || "")}`);
        }
      return trace;
    },
  );
  by("probe-note").textContent = data.correlations[by("probe").value] || "";
  Plotly.react("probes", traces, layout(plain(by("probe").value), "held-out forgetting (points)"), config);
  drawInside();
}
