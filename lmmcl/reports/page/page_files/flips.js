// Questions that flipped, as cards with their pictures.

function drawFlips() {
  const shown = whole.flips.find(
      (each) => each.name === by("flips-trial").value && each.benchmark === by("flips-benchmark").value,
    ),
    box = by("flips");
  box.replaceChildren();
  for (const [kind, title] of [
    ["lost", "Answered before, not after"],
    ["gained", "Answered after, not before"],
  ]) {
    if (!shown) continue;
    box.append(make("h3", `${title}: ${shown[`${kind}_count`]} of ${shown.questions}`));
    for (const each of shown[kind]) {
      const card = make("div", null, { class: "flip" }),
        text = make("div");
      if (each.image) card.append(make("img", null, { src: each.image, alt: "", loading: "lazy" }));
      text.append(
        make("p", each.question),
        make("p", `wanted: ${each.references.join(" / ")}`),
        make("p", `before: ${each.before}`),
        make("p", `after: ${each.after}`),
      );
      card.append(text);
      box.append(card);
    }
  }
}
