// The cards of the answer browser: one for each question, with a table of answers by trial and stage.

function questionCard(question, runs) {
  const block = browsing.block;
  const card = make("article", null, { class: "question" }),
    text = make("div");
  const pictures = make("div", null, { class: "pictures" });
  block.pictures[question].forEach((digest, at) => {
    const address = pictureAddress(digest);
    if (!address) return;
    const name = `picture ${at + 1} of question ${block.ids[question]}`;
    const button = make("button", null, { type: "button", class: "picture", "aria-label": `${name}, show it large` });
    button.append(make("img", null, { src: address, alt: "" }));
    button.onclick = () => showLarge(address, name, block.texts[block.questions[question]]);
    pictures.append(button);
  });
  if (pictures.childNodes.length) card.append(pictures);
  text.append(
    make("p", block.texts[block.questions[question]], { class: "asked" }),
    make("p", `right: ${block.references[question].map((text) => block.texts[text]).join(" / ")}`, {
      class: "accepted",
    }),
    make("p", block.ids[question], { class: "id" }),
  );
  card.append(text, answerTable(question, runs));
  return card;
}

function answerTable(question, runs) {
  const table = make("table", null, { class: "answers" }),
    body = make("tbody"),
    head = make("tr");
  const numbers = [...new Set(runs.flatMap((run) => run.stages.map((stage) => stage.number)))].sort((a, b) => a - b);
  head.append(make("th", "trial", { scope: "col" }));
  for (const number of numbers) {
    const skills = new Set(
      runs.flatMap((run) => run.stages.filter((each) => each.number === number).map((each) => each.skill)),
    );
    const name = number === 0 ? "before" : `${number}${skills.size === 1 ? ` ${[...skills][0] ?? ""}` : ""}`;
    head.append(make("th", name, { scope: "col" }));
  }
  for (const run of runs) {
    const row = make("tr");
    row.append(
      make("th", whole.answers.trials[run.trial].short, { scope: "row", title: whole.answers.trials[run.trial].name }),
    );
    let before = null;
    for (const number of numbers) {
      const stage = run.stages.find((each) => each.number === number);
      const right = stage ? isRight(stage.column, question) : null;
      row.append(answerCell(stage, question, right, before));
      if (right !== null) before = right;
    }
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  table.append(top, body);
  const scroll = make("div", null, { class: "scroll", tabindex: 0, role: "region", "aria-label": "answers" });
  scroll.append(table);
  return scroll;
}

function answerCell(stage, question, right, before) {
  if (right === null) return make("td", "–");
  const flipped = before !== null && before !== right;
  const cell = make("td", null, { class: `${right ? "right" : "wrong"} ${flipped ? "flipped" : ""}` });
  const score = stage.column.scores[question],
    part = score > 0 && score < 1 ? ` ${score}` : "";
  const mark = `${right ? "✓" : "✗"}${flipped ? (right ? " ▲" : " ▼") : ""}${part}`;
  const word = `${right ? "right" : "wrong"}${flipped ? ", flipped" : ""}: `;
  cell.append(
    make("span", mark, { class: "mark", "aria-hidden": "true" }),
    make("span", word, { class: "unseen" }),
    browsing.block.texts[stage.column.predictions[question]] || "(empty)",
  );
  return cell;
}

function showLarge(address, name, question) {
  by("large-picture").src = address;
  by("large-picture").alt = name;
  by("large-text").textContent = question;
  by("large").showModal();
}
