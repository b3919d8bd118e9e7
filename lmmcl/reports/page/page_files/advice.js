// Which trial to take under the reader's budget, from the choices that the report has made.

function drawAdvice() {
  const box = by("advice-text"),
    groups = whole.advice.groups,
    allowed = budget() === null ? Infinity : budget();
  box.replaceChildren();
  for (const group of groups) {
    const fits = group.choices.filter((choice) => choice.heldOut >= -allowed),
      choice = fits[fits.length - 1],
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
      if (choice.low !== null && choice.low < -allowed)
        box.append(make("p", `Its loss may be beyond the budget: the interval reaches ${points(choice.low)}.`));
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
