// Where labels go: beside their points without covering each other, and at the ends of lines, one below the other.

const LETTER = 6.2,
  LINE_HIGH = 14;
// What is too long loses its middle: names of trials differ at both ends.
function cut(text, most) {
  if (text.length <= most) return text;
  const end = Math.floor((most - 1) / 2);
  return `${text.slice(0, Math.max(1, most - 1 - end))}…${end > 0 ? text.slice(-end) : ""}`;
}

// `spots` are {x, y, text, must, arms} in pixels of a `frame` {left, right, top, bottom}, the most important first; `arms` are the boxes
// of their intervals. The answer has for each null or {dx, dy, from}: how far the label's nearest edge is from the point, and that edge.
function placeLabels(spots, frame, most) {
  const taken = spots.flatMap(({ x, y, arms = [] }) => [[x - 7, y - 7, x + 7, y + 7], ...arms]);
  const free = (box) =>
    box[0] >= frame.left &&
    box[2] <= frame.right &&
    box[1] >= frame.top &&
    box[3] <= frame.bottom &&
    !taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
  let placed = 0;
  return spots.map((spot) => {
    if (placed >= most) return null;
    const wide = spot.text.length * LETTER + 4;
    for (const reach of spot.must ? [10, 18, 32, 50, 75, 110] : [10, 18, 30])
      for (const [across, down] of [
        [1, 0],
        [-1, 0],
        [0, -1],
        [0, 1],
        [1, -1],
        [1, 1],
        [-1, -1],
        [-1, 1],
      ]) {
        const x = spot.x + across * reach,
          y = spot.y + down * reach;
        const left = across > 0 ? x : across < 0 ? x - wide : x - wide / 2,
          top = y - LINE_HIGH / 2;
        const box = [left, top, left + wide, top + LINE_HIGH];
        if (!free(box)) continue;
        taken.push(box);
        placed += 1;
        return { dx: across * reach, dy: down * reach, from: across > 0 ? "left" : across < 0 ? "right" : "center" };
      }
    return null;
  });
}

// Heights for labels at the right end of lines: as near to `y` as their neighbours and the frame allow, in the same order.
// Of more lines than there is room for, those named first are kept; the others have null.
function stackLabels(heights, top, bottom) {
  const room = Math.max(1, Math.floor((bottom - top) / LINE_HIGH));
  const kept = heights.map((y, at) => ({ y, at })).slice(0, room);
  kept.sort((a, b) => a.y - b.y || a.at - b.at);
  let lowest = top;
  for (const each of kept) {
    each.to = Math.max(each.y, lowest);
    lowest = each.to + LINE_HIGH;
  }
  let highest = bottom;
  for (const each of [...kept].reverse()) {
    each.to = Math.min(each.to, highest);
    highest = each.to - LINE_HIGH;
  }
  const found = heights.map(() => null);
  for (const each of kept) found[each.at] = each.to;
  return found;
}

const pixels = (chart) => {
  const { xaxis, yaxis, _size: size } = by(chart)._fullLayout;
  return {
    x: (value) => xaxis._offset + xaxis.d2p(value),
    y: (value) => yaxis._offset + yaxis.d2p(value),
    left: size.l,
    right: size.l + size.w,
    top: size.t,
    bottom: size.t + size.h,
  };
};

// Labels do not move the axes of a chart: these stay as the data have made them.
function annotate(chart, annotations) {
  const { xaxis, yaxis } = by(chart)._fullLayout;
  const held = { "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range] };
  Plotly.relayout(chart, { ...held, annotations });
}

// Labels beside points of a chart: `spots` are {x, y, text, must, across, up} in its own units, the most important first; `across` and
// `up` are intervals.
function labelPoints(chart, spots, most, kept = []) {
  const at = pixels(chart);
  const inPixels = spots.map((spot) => {
    const x = at.x(spot.x),
      y = at.y(spot.y);
    const arms = [];
    if (spot.across) arms.push([at.x(spot.across[0]), y - 2, at.x(spot.across[1]), y + 2]);
    if (spot.up) arms.push([x - 2, at.y(spot.up[1]), x + 2, at.y(spot.up[0])]);
    return { ...spot, x, y, arms };
  });
  const shown = inPixels.map(
    (spot) => spot.x >= at.left && spot.x <= at.right && spot.y >= at.top && spot.y <= at.bottom,
  );
  const seen = spots.filter((_, place) => shown[place]),
    dots = inPixels.filter((_, place) => shown[place]);
  const found = placeLabels(dots, at, most);
  const notes = found.flatMap((place, number) => {
    if (!place) return [];
    const { x, y, text } = seen[number],
      far = Math.hypot(place.dx, place.dy) > 20;
    return {
      x,
      y,
      text: plain(text),
      font: { size: 11, color: look().ink },
      bgcolor: `${look().ground}b0`,
      showarrow: far,
      arrowhead: 0,
      arrowwidth: 0.8,
      arrowcolor: look().soft,
      standoff: 5,
      xanchor: place.from,
      yanchor: "middle",
      captureevents: false,
      ...(far ? { ax: place.dx, ay: place.dy } : { xshift: place.dx, yshift: -place.dy }),
    };
  });
  annotate(chart, [...kept, ...notes]);
}

// The share of a chart's width that labels at the ends of its lines take, and how many letters that is.
function endRoom(chart, texts) {
  const most = by(chart).clientWidth * (compact() ? 0.36 : 0.3);
  const letters = Math.max(
    4,
    Math.min(Math.max(0, ...texts.map((text) => text.length)), Math.floor((most - 18) / LETTER)),
  );
  return { letters, margin: Math.round(letters * LETTER + 22) };
}

// Labels at the right ends of lines: `lines` are {x, y, text, colour}, the most important first.
function labelEnds(chart, lines, letters, kept = []) {
  const at = pixels(chart);
  const heights = lines.map(({ y }) => at.y(y));
  const found = stackLabels(heights, at.top, at.bottom);
  const notes = lines.flatMap(({ x, y, text, colour }, number) => {
    if (found[number] === null) return [];
    return {
      x,
      y,
      text: plain(cut(text, letters)),
      font: { size: 11, color: look().ink },
      bgcolor: `${look().ground}b0`,
      showarrow: true,
      arrowhead: 0,
      arrowwidth: 1,
      arrowcolor: colour,
      standoff: 4,
      ax: at.right - at.x(x) + 12,
      ay: found[number] - heights[number],
      xanchor: "left",
      yanchor: "middle",
      captureevents: false,
    };
  });
  annotate(chart, [...kept, ...notes]);
}
