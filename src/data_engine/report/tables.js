/* Findings, holes and runs. */

const HOLES = [
  ["vendor", "the vendor’s", "minutes that nearly all symbols lack together"],
  ["lone", "lone", "a halt, or bars that the vendor lacks for one symbol"],
  ["failed", "failed", "wanted, asked, and not answered"],
  ["never_asked", "never asked", "wanted, and not asked yet"],
  ["thin", "thin", "single empty minutes of quiet symbols: no trade, most likely"],
  ["not_a_session", "no session", "wanted ranges without a session: nothing can be there"],
];

/* A table that shows so many rows, and more when asked. */
function growing(box, columns, rows, draw, caption, size) {
  const body = el("tbody");
  let shown = 0;
  const more = el("button", { type: "button", class: "more" });
  const grow = () => {
    body.append(...rows.slice(shown, shown + size).map(draw));
    shown = Math.min(rows.length, shown + size);
    more.hidden = shown >= rows.length;
    more.textContent = `Show ${count(Math.min(size, rows.length - shown))} more of ${count(rows.length - shown)}`;
  };
  more.addEventListener("click", grow);
  grow();
  const header = columns.map(([name, kind]) => el("th", { scope: "col", class: kind || "" }, name));
  box.replaceChildren(el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...header)), body), more);
}

function showFlags(data) {
  const { contradictions, warnings } = data;
  const how = data.quick ? "A quick look: the ends of the files alone were read, no single bar was judged, and no hole was looked for." : "Every bar was read.";
  const advice = contradictions ? " `data-engine verify --repair` says what would mend them." : "";
  $("flags-lead").textContent = `${how} ${plural(contradictions, "contradiction")} (what cannot be true), ${plural(warnings, "warning")} (what should be known).${advice}`;
  $("holes").replaceChildren(...(data.holes ? HOLES : []).map(([kind, name, text]) =>
    el("div", {}, el("dt", {}, `Holes: ${name}`), el("dd", {}, count(data.holes[kind] || 0), el("small", {}, text)))));
  const codes = new Map();
  for (const finding of data.findings) codes.set(finding.code, (codes.get(finding.code) || 0) + 1);
  const select = $("flag-code");
  select.replaceChildren(el("option", { value: "" }, `all ${count(data.findings.length)}`),
    ...[...codes].map(([code, many]) => el("option", { value: code }, `${code.replaceAll("_", " ")} (${count(many)})`)));
  $("flags-controls").hidden = codes.size < 2;
  const draw = () => {
    const rows = data.findings.filter((finding) => !select.value || finding.code === select.value);
    if (!rows.length) {
      $("flags-table").replaceChildren(el("p", { class: "empty" }, "Nothing was found."));
      return;
    }
    const left = contradictions + warnings - data.findings.length;
    const caption = `${plural(rows.length, "finding")}${left > 0 ? `; ${count(left)} more are not in this page (data-engine verify --json lists all)` : ""}`;
    growing($("flags-table"), [["Kind"], ["What"], ["Series"], ["Message"], ["What a repair does"]], rows, flagRow, caption, 100);
  };
  select.addEventListener("change", draw);
  draw();
}

function flagRow(finding) {
  const series = finding.symbol ? `${finding.symbol} · ${finding.dataset}` : "–";
  return el("tr", {}, el("td", { class: finding.grave ? "bad" : "warn" }, finding.grave ? "contradiction" : "warning"),
    el("td", { class: "nowrap" }, finding.code.replaceAll("_", " ")), el("td", { class: "nowrap" }, series),
    el("td", { class: "wide" }, finding.message), el("td", { class: "wide quiet" }, finding.remedy));
}

function showRuns(data) {
  $("runs-lead").textContent = data.runs.length
    ? "What each run of ingest and update asked, got, and failed. The latest first; times are UTC."
    : "";
  if (!data.runs.length) {
    $("runs-table").replaceChildren(el("p", { class: "empty" }, "No run is remembered: this store was made before runs were, or not by ingest."));
    return;
  }
  const columns = [["When"], ["What"], ["Asked"], ["Got"], ["Failed"], ["Took", "number"]];
  growing($("runs-table"), columns, data.runs, runRow, plural(data.runs.length, "run"), 50);
}

const RUN_WORDS = { done: ["done", "good"], failed: ["some failed", "warn"], stopped: ["stopped", "bad"], interrupted: ["interrupted", "warn"] };

function runRow(run) {
  const [word, kind] = RUN_WORDS[run.state] || [run.state, ""];
  const what = [el("p", {}, run.command, run.index ? ` of ${run.index}` : ""), el("p", { class: kind }, word)];
  const asked = run.asked.map((one) => {
    const names = one.named.join(", ") + (one.symbols > one.named.length ? ` and ${count(one.symbols - one.named.length)} more` : "");
    const held = one.complete ? `, ${one.complete === one.symbols ? "all" : count(one.complete)} held already` : "";
    return el("p", {}, `${one.dataset}: ${plural(one.symbols, "symbol")}${held}, ${rangeText(one.start, one.end)}`, el("br"), el("span", { class: "quiet" }, names));
  });
  const got = [`${plural(run.added, "bar")} new`];
  if (run.revised) got.push(`${count(run.revised)} revised`);
  if (run.vanished) got.push(`${count(run.vanished)} no longer at the vendor`);
  got.push(plural(run.requests, "request"));
  const failed = run.failures.map((one) => {
    const names = one.named.join(", ") + (one.symbols > one.named.length ? ` and ${count(one.symbols - one.named.length)} more` : "");
    return el("p", {}, el("b", {}, `${names}: `), one.message);
  });
  if (run.error) failed.unshift(el("p", { class: "bad" }, run.error[1]));
  const notes = run.notes.map((note) => el("p", { class: "quiet" }, note));
  return el("tr", {}, el("td", { class: "nowrap" }, stamp(run.began)), el("td", { class: "nowrap" }, ...what), el("td", { class: "wide" }, ...asked),
    el("td", {}, ...got.map((text) => el("p", { class: "nowrap" }, text)), ...notes), el("td", { class: "wide" }, ...(failed.length ? failed : ["–"])), el("td", { class: "number" }, lasted(run.seconds)));
}
