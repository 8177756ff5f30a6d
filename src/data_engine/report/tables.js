/* Findings, gaps and runs. */

const GAPS = [
  ["shared", "shared", "bars that nearly all symbols lack together"],
  ["single_symbol", "single-symbol", "a trading halt, or bars of one symbol missing at Alpaca"],
  ["failed", "failed", "requested ranges whose request failed"],
  ["not_fetched", "not fetched", "requested ranges that are not fetched yet"],
  ["not_requested", "not requested", "ranges between requested ones that you never requested"],
  ["quiet", "quiet", "absent bars of illiquid symbols: probably no trade"],
  ["no_session", "no session", "requested ranges without a session: there can be no bar"],
];

/* A table of `size` rows, with a button for more. */
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

/* A cell that on a narrow screen has the name of its column before it. */
const cellOf = (name, kind, ...inner) => el("td", { class: kind, "data-label": name }, el("div", {}, ...inner));

function showFlags(data) {
  const { inconsistencies, warnings } = data;
  const how = data.quick ? "Quick check: only file metadata was read; bars and gaps were not checked." : "Every bar was checked.";
  const advice = inconsistencies ? " Run `data-engine verify --repair --dry-run` to see what a repair does." : "";
  $("flags-lead").textContent = `${how} ${plural(inconsistencies, "inconsistency", "inconsistencies")} between files, coverage and calendar, ${plural(warnings, "warning")}.${advice}`;
  $("gaps").replaceChildren(...(data.gaps ? GAPS : []).map(([kind, name, text]) =>
    el("div", {}, el("dt", {}, `Gaps: ${name}`), el("dd", {}, count(data.gaps[kind] || 0), el("small", {}, text)))));
  const codes = new Map();
  for (const finding of data.findings) codes.set(finding.code, (codes.get(finding.code) || 0) + 1);
  const select = $("flag-code");
  select.replaceChildren(el("option", { value: "" }, `all ${count(data.findings.length)}`),
    ...[...codes].map(([code, many]) => el("option", { value: code }, `${code.replaceAll("_", " ")} (${count(many)})`)));
  $("flags-controls").hidden = codes.size < 2;
  const draw = () => {
    const rows = data.findings.filter((finding) => !select.value || finding.code === select.value);
    if (!rows.length) {
      $("flags-table").replaceChildren(el("p", { class: "empty" }, "No findings."));
      return;
    }
    const left = inconsistencies + warnings - data.findings.length;
    const caption = `${plural(rows.length, "finding")}${left > 0 ? `; ${count(left)} more are not in this report (run data-engine verify --json for all)` : ""}`;
    growing($("flags-table"), [["Kind"], ["Code"], ["Series"], ["Message"], ["Remedy"]], rows, flagRow, caption, 100);
  };
  select.addEventListener("change", draw);
  draw();
}

function flagRow(finding) {
  const series = finding.symbol ? `${finding.symbol} · ${finding.dataset}` : "–";
  return el("tr", {}, cellOf("Kind", finding.inconsistency ? "bad" : "warn", finding.inconsistency ? "inconsistency" : "warning"),
    cellOf("Code", "nowrap", finding.code.replaceAll("_", " ")), cellOf("Series", "nowrap", series),
    cellOf("Message", "wide", finding.message), cellOf("Remedy", "wide quiet", finding.remedy));
}

function showRuns(data) {
  $("runs-lead").textContent = data.runs.length
    ? "Runs of ingest and update: requested ranges, results and failures. Latest first; times are UTC."
    : "";
  if (!data.runs.length) {
    $("runs-table").replaceChildren(el("p", { class: "empty" }, "No run is recorded: ingest did not create this store, or an older version did."));
    return;
  }
  const columns = [["Time"], ["Command"], ["Requested"], ["Result"], ["Failed"], ["Duration", "number"]];
  growing($("runs-table"), columns, data.runs, runRow, plural(data.runs.length, "run"), 50);
}

const RUN_WORDS = { done: ["done", "good"], failed: ["some failed", "warn"], stopped: ["stopped", "bad"], interrupted: ["interrupted", "warn"] };

/* The names of some symbols, and the number of the others. */
function namesText({ named, symbols }, most = Infinity) {
  const shown = named.slice(0, most);
  return shown.join(", ") + (symbols > shown.length ? ` and ${count(symbols - shown.length)} more` : "");
}

function runRow(run) {
  const [word, kind] = RUN_WORDS[run.state] || [run.state, ""];
  const what = [el("p", {}, run.command, run.index ? ` of ${run.index}` : ""), el("p", { class: kind }, word)];
  const requested = run.asked.map((one) => {
    const complete = one.complete ? `, ${one.complete === one.symbols ? "all" : count(one.complete)} already complete` : "";
    return el("p", {}, `${one.dataset}: ${plural(one.symbols, "symbol")}${complete}, ${rangeText(one.start, one.end)}`, el("br"), el("span", { class: "quiet" }, namesText(one, 6)));
  });
  const result = [`${plural(run.added, "new bar")}`];
  if (run.revised) result.push(`${count(run.revised)} revised`);
  if (run.vanished) result.push(`${count(run.vanished)} dropped at Alpaca, kept`);
  if (run.removed) result.push(`${count(run.removed)} removed`);
  result.push(plural(run.requests, "request"));
  const failed = run.failures.map((one) => el("p", {}, el("b", {}, `${namesText(one)}: `), one.message));
  if (run.error) failed.unshift(el("p", { class: "bad" }, run.error[1]));
  const notes = run.notes.map((note) => el("p", { class: "quiet" }, note));
  return el("tr", {}, cellOf("Time", "nowrap", timestamp(run.began)), cellOf("Command", "nowrap", ...what), cellOf("Requested", "wide", ...requested),
    cellOf("Result", "", ...result.map((text) => el("p", { class: "nowrap" }, text)), ...notes), cellOf("Failed", "wide", ...(failed.length ? failed : ["–"])),
    cellOf("Duration", "number", durationText(run.seconds)));
}
