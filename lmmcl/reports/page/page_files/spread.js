// Seeds and orders as distributions: a point for each trial of a grid point, beside their mean with its interval.

function drawSpread() {
  const groups = whole.spread.filter(
    (group) => group.over === by("spread-over").value && group.measure === by("spread-measure").value,
  );
  by("spread").classList.toggle("empty", !groups.length);
  if (!groups.length) return;
  const { ink, ground } = look(),
    shown = groups.slice(0, 30);
  const dots = { x: [], y: [], text: [], mode: "markers", hovertemplate: "%{text}<extra></extra>" };
  dots.marker = {
    size: 8,
    color: data.words[night() ? 1 : 0][0],
    symbol: "circle",
    line: { width: 0.7, color: ground },
  };
  const means = { x: [], y: [], text: [], mode: "markers", hovertemplate: "%{text}<extra></extra>" };
  means.marker = { size: 10, color: ink, symbol: "diamond" };
  const arms = [];
  shown.forEach((group, at) => {
    group.values.forEach(([name, value], rank) => {
      dots.x.push(value);
      dots.y.push(shown.length - 1 - at - 0.12 - (0.5 * rank) / group.values.length);
      dots.text.push(`<b>${plain(group.point)}</b><br>${plain(name)}: ${points(value)}`);
    });
    means.x.push(group.mean);
    means.y.push(shown.length - 1 - at + 0.12);
    means.text.push(
      `<b>${plain(group.point)}</b><br>mean ${range(group.mean, [group.low, group.high])}<br>standard deviation ${tenth(group.deviation)}`,
    );
    arms.push([group.low, group.high]);
  });
  means.error_x = { ...armsOf(means.x, arms), color: ink, thickness: 1.4 };
  const shape = layout(`${data.labels[by("spread-measure").value]} (points)`, "");
  shape.margin.t = 12;
  Object.assign(shape.yaxis, {
    tickvals: shown.map((_, at) => shown.length - 1 - at),
    ticktext: shown.map((group) => plain(cut(group.point, compact() ? 16 : 44))),
    range: [-0.8, shown.length - 0.4],
    zeroline: false,
    showgrid: false,
  });
  shape.height = 90 + 44 * shown.length;
  by("spread").style.height = `${shape.height}px`;
  by("spread-note").textContent =
    groups.length > shown.length ? `The first ${shown.length} of ${groups.length} grid points.` : "";
  Plotly.react("spread", [dots, means], shape, still);
}

function startSpread() {
  by("spread-section").hidden = !whole.spread.length;
  if (!whole.spread.length) return;
  for (const over of new Set(whole.spread.map((group) => group.over)))
    by("spread-over").append(make("option", over, { value: over }));
  for (const name of new Set(whole.spread.map((group) => group.measure)))
    by("spread-measure").append(make("option", name.replace(/_/g, " "), { value: name }));
  for (const id of ["spread-over", "spread-measure"]) by(id).onchange = drawSpread;
}
