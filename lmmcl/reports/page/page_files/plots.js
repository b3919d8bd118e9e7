// What all charts share: frame, tool bar, the words on a point, the arms of an interval.

// named one by one: plotly's own choice has a button that sends the chart away
const config = {
  displaylogo: false,
  displayModeBar: !compact(),
  responsive: true,
  plotlyServerURL: "",
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

function layout(x, y) {
  const axis = (title) => ({
    title: { text: title, standoff: 8 },
    gridcolor: LINE,
    zerolinecolor: "#aab2bd",
    automargin: true,
    ticks: "outside",
    tickcolor: LINE,
  });
  return {
    margin: { l: 55, r: 12, t: 12, b: 48 },
    xaxis: axis(x),
    yaxis: axis(y),
    hovermode: "closest",
    showlegend: false,
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
    font: { family: "system-ui, sans-serif", size: 13, color: INK },
    hoverlabel: { bgcolor: "#fff", bordercolor: "#aab2bd", font: { color: INK }, align: "left" },
    dragmode: compact() ? false : "zoom",
  };
}

function hover(trial) {
  const lines = [`<b>${plain(trial.name)}</b>`];
  for (const axis of varying) lines.push(`${plain(axis.label)}: ${plain(axisValue(trial, axis))}`);
  data.measures.forEach((name, place) => {
    const ends = interval(trial, place);
    lines.push(
      `${plain(data.labels[name])}: ${points(measure(trial, place))}${ends ? ` [${points(ends[0])}, ${points(ends[1])}]` : ""}`,
    );
  });
  lines.push(`trained: ${plain(trial.costWords[0])}`);
  if (trial.state !== "done") lines.push(plain(trial.reached + (trial.stopped ? `: ${trial.stopped}` : "")));
  return lines.join("<br>");
}

const arms = (trials, place) => {
  const lengths = (end) =>
    trials.map((trial) => {
      const ends = interval(trial, place),
        value = measure(trial, place);
      return ends ? Math.max(0, end ? ends[1] - value : value - ends[0]) : 0;
    });
  return {
    type: "data",
    symmetric: false,
    array: lengths(1),
    arrayminus: lengths(0),
    thickness: 1,
    width: 0,
    visible: by("bars").checked,
  };
};
