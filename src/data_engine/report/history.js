/* What changed after it was final, the gaps that are filled, and the bars that conflict with Alpaca's. */

const LATER = [
  ["late", "came late", "Came late", "bars that were added where their range was complete and final"],
  ["revised", "revised", "Revised", "bars that got other values after they were final"],
  ["removed", "removed", "Removed", "bars that went, by a command or since Alpaca dropped them"],
];

/* The numbers of one month of a series: bars that came late, were revised and went. */
function laterOf(series, month) {
  const found = series.later.find(([number]) => number === month);
  return found ? LATER.map(([, words], kind) => [found[kind + 1], words]).filter(([many]) => many) : [];
}

function historyLead(history) {
  if (!history.begins) return "The store has no history yet: it has one from its first change by this version on.";
  const begins = `The history begins at ${timestamp(history.begins)} UTC.`;
  if (!history.read) return `${begins} Quick report: the changes of bars were not read.`;
  const made = ["What changed after it was final, latest first; times are UTC.", begins];
  if (history.from_before) made.push(`${plural(history.from_before, "file")} of bars had been stored before; earlier changes of them are not known.`);
  if (history.unexplained) made.push(`Changes of ${plural(history.unexplained, "file")} are not recorded, so earlier ones are not known; data-engine verify names them.`);
  if (history.unknown) made.push(`Of ${plural(history.unknown, "bar")} that were added or revised, it is not known whether they were final.`);
  if (history.open) made.push(`${plural(history.open, "revision")} of bars that were not final are not listed: provisional ones, those of an adjusted series that was fetched again, and those only imported or stored.`);
  return made.join(" ");
}

function showHistory(data) {
  const { history } = data;
  $("history-lead").textContent = historyLead(history);
  $("history-problems").hidden = !history.problems.length;
  const others = history.problem_count - history.problems.length;
  $("history-problems").replaceChildren(...history.problems.map((text) => el("li", {}, text)), others ? el("li", {}, `and ${count(others)} more`) : "");
  const sums = history.read && history.begins ? LATER.map(([kind, words, , text]) => [`Bars: ${words}`, history.totals[kind], text]) : [];
  if (history.totals.not_kept) sums.push(["Files: not kept", history.totals.not_kept, "replaced or removed; their old bars are not kept"]);
  if (history.fill_count) sums.push(["Gaps: filled", history.fill_count, "gaps of Alpaca's that have bars of another source"]);
  sums.push(["Bars: conflicting", history.conflict_count, "stored bars that Alpaca has revised or dropped since"]);
  $("history-sums").replaceChildren(...sums.map(([words, many, text]) =>
    el("div", {}, el("dt", {}, words), el("dd", {}, count(many), el("small", {}, text)))));
  $("history-controls").hidden = $("history-table").hidden = !sums.length || !history.read || !history.begins;
  const draw = () => drawChanges(history, $("history-kind").value, $("history-by").value === "day", $("history-find").value.trim().toUpperCase());
  for (const id of ["history-kind", "history-by"]) $(id).addEventListener("change", draw);
  $("history-find").addEventListener("input", draw);
  draw();
  showFills(history);
  showConflicts(history);
}

function drawChanges(history, kind, byDay, word) {
  const box = $("history-table"), all = byDay ? history.days : history.changes;
  $("history-find").disabled = byDay;
  const rows = all.filter((one) => (!kind || one[kind]) && (byDay || one.symbol.toUpperCase().includes(word)));
  const left = (byDay ? history.day_count : history.change_count) - all.length;
  const what = byDay ? "day of changes" : "change";
  const more = left > 0 ? `; ${count(left)} earlier ones are not in this report (data-engine history SYMBOL prints those of a symbol)` : "";
  if (!rows.length) {
    box.replaceChildren(el("p", { class: "empty" }, `${all.length ? "No change matches" : "No bar has changed after it was final"}${more}.`));
    return;
  }
  const counts = LATER.map(([, , title]) => [title, "number"]);
  const columns = byDay ? [["Day"], ["Series", "number"], ...counts] : [["Time"], ["Series"], ...counts, ["Days"], ["Made by"]];
  growing(box, columns, rows, byDay ? dayRow : changeRow, plural(rows.length, what, byDay ? "days of changes" : "changes") + more, 100);
}

const laterCells = (one) => LATER.map(([kind, , title]) => cellOf(title, "number", one[kind] ? count(one[kind]) : "–"));

function dayRow(one) {
  return el("tr", {}, cellOf("Day", "nowrap", one.day), cellOf("Series", "number", count(one.series)), ...laterCells(one));
}

function changeRow(one) {
  const days = one.days ? one.first + (one.days > 1 ? ` to ${one.last} (${plural(one.days, "day")})` : "") : "";
  const lost = one.not_kept ? `${plural(one.not_kept, "file")} whose old bars are not kept` : "";
  return el("tr", {}, cellOf("Time", "nowrap", timestamp(one.instant)), cellOf("Series", "nowrap", `${one.symbol} · ${one.dataset}`),
    ...laterCells(one), cellOf("Days", "days", [days, lost].filter(Boolean).join("; ")), cellOf("Made by", "wide", one.actor));
}

function showFills(history) {
  const left = history.fill_count - history.fills.length;
  $("fills").hidden = !history.fills.length;
  if (!history.fills.length) return;
  const caption = plural(history.fill_count, "filled gap") + (left > 0 ? `, of which ${count(left)} are not in this report` : "");
  growing($("fills-table"), [["Gap"], ["Series"], ["Source"], ["State"]], history.fills, fillRow, caption, 100);
}

function fillRow(one) {
  const [word, kind] = one.counts ? ["counts", ""] : ["left out: Alpaca has bars there now", "warn"];
  return el("tr", {}, cellOf("Gap", "", rangeText(one.start, one.end)), cellOf("Series", "nowrap", `${one.symbol} · ${one.dataset}`),
    cellOf("Source", "wide", one.source), cellOf("State", kind, word));
}

function showConflicts(history) {
  const box = $("conflicts-table"), left = history.conflict_count - history.conflicts.length;
  $("conflicts").hidden = !history.conflicts.length;
  if (!history.conflicts.length) return;
  const caption = `${plural(history.conflict_count, "conflicting bar")}${left > 0 ? `, of which ${count(left)} are not in this report` : ""}; data-engine recheck --accept applies Alpaca's values`;
  const columns = [["Bar"], ["Series"], ["Stored"], ["Alpaca"], ["First seen"]];
  growing(box, columns, history.conflicts, (one) => conflictRow(one, history.values), caption, 100);
}

/* A value as it was meant, or with all its digits where it can only be told from the other one by them. */
function valueText(value, other) {
  const short = Number(value.toPrecision(12));
  return String(other !== null && Number(other.toPrecision(12)) === short ? value : short);
}

function conflictRow(one, names) {
  const shown = names.map((name, number) => [name, number]).filter(([, number]) => !one.alpaca || one.stored[number] !== one.alpaca[number]);
  const text = (values, other) => shown.map(([name, number]) => `${name.replaceAll("_", " ")} ${valueText(values[number], other && other[number])}`).join(", ");
  return el("tr", {}, cellOf("Bar", "nowrap", timestamp(one.timestamp)), cellOf("Series", "nowrap", `${one.symbol} · ${one.dataset}`),
    cellOf("Stored", "", text(one.stored, one.alpaca)), cellOf("Alpaca", one.alpaca ? "" : "warn", one.alpaca ? text(one.alpaca, one.stored) : "dropped"),
    cellOf("First seen", "nowrap", timestamp(one.seen)));
}
