// The answer browser: every question of a benchmark with its pictures, what counts as right, and what trials answered after each stage.

const RIGHT = 0.5; // a score from which an answer counts as right: metrics may give a part of a point
const A_PAGE = 10;
const browsing = { block: null, trials: new Set(), kept: [], page: 0 };

// Blocks and pictures lie in the page itself, or in a folder beside it, whose scripts call this.
const waiting = new Map();
window.lmmclAnswers = (place, block) => {
  waiting.get(place)?.(block);
  waiting.delete(place);
};
const blocks = new Map();
function withBlock(place, use) {
  if (blocks.has(place)) return use(blocks.get(place));
  const keep = (block) => {
    blocks.set(place, block);
    use(block);
  };
  const inside = by(`answers-${place}`);
  if (inside) return keep(JSON.parse(inside.textContent));
  const script = make("script", null, { src: whole.answers.blocks[place].file });
  waiting.set(place, keep);
  script.onerror = () => {
    const folder = whole.answers.blocks[place].file.split("/")[0];
    by("answers-note").textContent = `${folder}/ is missing: it belongs beside this page, and holds the answers.`;
  };
  document.head.append(script);
}
let inlinePictures = null;
function pictureAddress(digest) {
  const file = whole.answers.pictures?.[digest];
  if (file) return file;
  inlinePictures ??= JSON.parse(by("pictures")?.textContent ?? "{}");
  return inlinePictures[digest];
}

// Right, wrong, or not asked (null).
function isRight(column, question) {
  const score = column.scores[question];
  return score === null || score === undefined ? null : score >= RIGHT;
}

// For each trial that is shown: its stages as [number, skill, column].
function shownRuns() {
  return browsing.block.runs
    .filter((run) => browsing.trials.has(run.trial))
    .map((run) => ({
      ...run,
      stages: run.stages.map(([number, skill, column]) => ({ number, skill, column: browsing.block.columns[column] })),
    }));
}
const verdicts = (run, question) =>
  run.stages.map((stage) => isRight(stage.column, question)).filter((right) => right !== null);
const lostBy = (run, question) => {
  const all = verdicts(run, question);
  return all.length > 1 && all[0] && !all[all.length - 1];
};
const gainedBy = (run, question) => {
  const all = verdicts(run, question);
  return all.length > 1 && !all[0] && all[all.length - 1];
};
const flips = (run, question) => verdicts(run, question).some((right, at, all) => at > 0 && right !== all[at - 1]);
const endsRight = (run, question) => verdicts(run, question).pop() === true;

// Which questions a filter keeps, of the trials shown.
const FILTERS = {
  all: () => true,
  flipped: (runs, question) => runs.some((run) => flips(run, question)),
  lost: (runs, question) => runs.some((run) => lostBy(run, question)),
  gained: (runs, question) => runs.some((run) => gainedBy(run, question)),
  never: (runs, question) => runs.length > 0 && runs.every((run) => verdicts(run, question).every((right) => !right)),
  wrong: (runs, question) => runs.length > 0 && runs.every((run) => !endsRight(run, question)),
  right: (runs, question) => runs.length > 0 && runs.every((run) => endsRight(run, question)),
};

function filterOf(value, runs) {
  if (value.startsWith("only-")) {
    const wanted = Number(value.slice(5));
    return (question) => runs.every((run) => endsRight(run, question) === (run.trial === wanted));
  }
  if (value.startsWith("stage-")) {
    const [, trial, number, way] = value.split("-");
    const run = runs.find((each) => each.trial === Number(trial)),
      at = run ? run.stages.findIndex((stage) => stage.number === Number(number)) : -1;
    return (question) => {
      if (at < 1) return false;
      const [before, after] = [at - 1, at].map((place) => isRight(run.stages[place].column, question));
      return before !== null && after !== null && (way === "lost" ? before && !after : !before && after);
    };
  }
  return (question) => FILTERS[value](runs, question);
}

function searchText(question) {
  const block = browsing.block;
  const texts = [block.questions[question], ...block.references[question]].map((text) => block.texts[text]);
  return [block.ids[question], ...texts].join("\n").toLowerCase();
}

function keepQuestions() {
  const runs = shownRuns(),
    keeps = filterOf(by("answers-filter").value, runs),
    words = by("answers-search").value.trim().toLowerCase();
  const said = (question) =>
    runs.some((run) =>
      run.stages.some((stage) =>
        (browsing.block.texts[stage.column.predictions[question]] ?? "").toLowerCase().includes(words),
      ),
    );
  browsing.kept = browsing.block.ids
    .map((_, question) => question)
    .filter((question) => keeps(question) && (!words || searchText(question).includes(words) || said(question)));
  browsing.page = 0;
  drawQuestions();
}

function drawQuestions() {
  const { kept, page, block } = browsing,
    runs = shownRuns(),
    start = page * A_PAGE;
  const shown = kept.slice(start, start + A_PAGE);
  by("answers-list").replaceChildren(...shown.map((question) => questionCard(question, runs)));
  by("answers-count").textContent = kept.length
    ? `${start + 1}–${start + shown.length} of ${kept.length} questions${kept.length < block.ids.length ? ` (of ${block.ids.length})` : ""}`
    : "No question is like this.";
  by("answers-previous").disabled = page === 0;
  by("answers-next").disabled = start + A_PAGE >= kept.length;
}

// How many questions each stage lost and gained, for each trial shown; a number shows these questions.
function drawFlipCounts() {
  const runs = shownRuns(),
    table = by("flip-counts"),
    head = make("tr"),
    body = make("tbody");
  const numbers = [...new Set(runs.flatMap((run) => run.stages.slice(1).map((stage) => stage.number)))].sort(
    (a, b) => a - b,
  );
  head.append(
    make("th", "flips by stage", { scope: "col" }),
    ...numbers.map((number) => make("th", `stage ${number}`, { scope: "col" })),
  );
  for (const run of runs) {
    const row = make("tr");
    row.append(make("th", whole.answers.trials[run.trial].short, { scope: "row" }));
    for (const number of numbers) {
      const cell = make("td"),
        stage = run.stages.find((each) => each.number === number);
      for (const [way, mark, word] of [
        ["lost", "▼", "lost"],
        ["gained", "▲", "gained"],
      ]) {
        const value = `stage-${run.trial}-${number}-${way}`,
          keeps = filterOf(value, runs);
        const count = browsing.block.ids.filter((_, question) => keeps(question)).length;
        const button = make("button", `${mark} ${count}`, {
          type: "button",
          class: `flip-count ${way}`,
          "aria-label": `${count} ${word} at stage ${number} by ${whole.answers.trials[run.trial].short}`,
        });
        button.onclick = () =>
          showOnly(
            value,
            `${word} at stage ${number}${stage?.skill ? ` (${stage.skill})` : ""} by ${whole.answers.trials[run.trial].short}`,
          );
        cell.append(button);
      }
      row.append(cell);
    }
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  table.replaceChildren(top, body);
}

// A filter that a number of the table of flips asks for stands in the list as long as it is used.
function showOnly(value, text) {
  for (const option of [...by("answers-filter").options]) if (option.value.startsWith("stage-")) option.remove();
  by("answers-filter").append(make("option", text, { value }));
  by("answers-filter").value = value;
  keepQuestions();
}

function fillFilters() {
  const list = by("answers-filter"),
    value = list.value || "all",
    runs = shownRuns();
  const options = [
    ["all", "all questions"],
    ["flipped", "flipped at some stage"],
    ["lost", "right before, wrong at the end"],
    ["gained", "wrong before, right at the end"],
    ["wrong", "wrong at the end in all trials shown"],
    ["never", "wrong at every stage of all trials shown"],
    ["right", "right at the end in all trials shown"],
    ...(runs.length > 1
      ? runs.map((run) => [`only-${run.trial}`, `right at the end only in ${whole.answers.trials[run.trial].short}`])
      : []),
  ];
  list.replaceChildren(...options.map(([key, text]) => make("option", text, { value: key })));
  list.value = options.some(([key]) => key === value) ? value : "all";
}

function drawAnswers() {
  const chosen = by("answers-benchmark").value;
  by("answers-note").textContent = "";
  withBlock(Number(chosen), (block) => {
    if (by("answers-benchmark").value !== chosen) return; // another benchmark was chosen while this one was loading
    browsing.block = block;
    fillFilters();
    drawFlipCounts();
    keepQuestions();
  });
}

function startAnswers() {
  by("answers-section").hidden = !whole.answers.blocks.length;
  if (!whole.answers.blocks.length) return;
  whole.answers.blocks.forEach(({ name, questions }, place) => {
    by("answers-benchmark").append(make("option", `${name} (${questions} questions)`, { value: place }));
  });
  whole.answers.trials.forEach((trial, place) => {
    const chip = make("button", trial.short, { type: "button", class: "chip", title: trial.name });
    chip.onclick = () => {
      browsing.trials.has(place) ? browsing.trials.delete(place) : browsing.trials.add(place);
      markChips();
      drawAnswers();
    };
    by("answers-trials").append(chip);
  });
  const markChips = () => {
    [...by("answers-trials").querySelectorAll(".chip")].forEach((chip, place) => {
      chip.setAttribute("aria-pressed", String(browsing.trials.has(place)));
    });
  };
  for (const place of whole.answers.shown) browsing.trials.add(place);
  markChips();
  by("answers-benchmark").onchange = drawAnswers;
  by("answers-filter").onchange = keepQuestions;
  by("answers-search").oninput = keepQuestions;
  const turn = (way) => () => {
    browsing.page += way;
    drawQuestions();
  };
  by("answers-previous").onclick = turn(-1);
  by("answers-next").onclick = turn(1);
  by("large-close").onclick = () => by("large").close();
  // what is inside the page stands after this script: it is read when the page is whole
  document.addEventListener("DOMContentLoaded", drawAnswers);
}
