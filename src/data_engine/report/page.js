/* The sections of the report and their controls. */

function showTop(data) {
  document.title = `Store report · ${data.store}`;
  $("where").textContent = `${data.store}${data.selection ? ` · only ${data.selection}` : ""} · checked ${timestamp(data.made)} UTC${data.quick ? " · quick check" : ""}`;
  $("made").textContent = `Made by ${data.by}. This file is self-contained and loads nothing.`;
  const last = data.runs[0];
  let stored = 0, requested = 0, unread = 0;
  for (const dataset of data.datasets) {
    for (const series of dataset.series) {
      unread += series.problem ? 1 : 0;
      for (let i = 0; i < series.final.length; i++) {
        stored += series.final[i] + series.provisional[i];
        requested += series.final[i] + series.provisional[i] + series.missing[i];
      }
    }
  }
  const share = requested || !unread ? `${requested ? Math.floor((stored / requested) * 1000) / 10 : 100} %` : "–";
  const tiles = [
    [count(data.series), "series"],
    [short.format(data.bars), "bars"],
    [share, `of requested sessions stored${unread ? `; ${count(unread)} series cannot be read` : ""}`, unread ? "bad" : stored === requested ? "good" : "warn"],
    [count(data.inconsistencies), data.inconsistencies === 1 ? "inconsistency" : "inconsistencies", data.inconsistencies ? "bad" : "good"],
    [count(data.warnings), data.warnings === 1 ? "warning" : "warnings"],
    [last ? timestamp(last.began).slice(0, 10) : "–", last ? `last run: ${RUN_WORDS[last.state][0]}` : "no run recorded"],
  ];
  if (data.history.conflict_count) tiles.splice(5, 0, [count(data.history.conflict_count), data.history.conflict_count === 1 ? "conflicting bar" : "conflicting bars", "warn"]);
  $("tiles").replaceChildren(...tiles.map(([value, text, kind]) => el("li", {}, el("b", { class: kind || "" }, value), el("span", {}, text))));
  showNext(data, requested - stored);
  if (data.notes.length) {
    $("problem").textContent = data.notes.join(" · ");
    $("problem").hidden = false;
  }
}

/* What to do next, and the command for it. */
function showNext(data, missing) {
  const failed = data.runs.length && data.runs[0].state !== "done";
  let next = [`nothing is missing${data.selection ? ` of ${data.selection}` : ""}; this fetches what is new:`, data.commands.update];
  if (data.commands.unite) next = ["unites the bars of the legacy pipeline with those of the store:", data.commands.unite];
  else if (data.inconsistencies) next = [`repairs ${plural(data.inconsistencies, "inconsistency", "inconsistencies")}:`, data.commands.repair];
  else if (data.commands.real) next = ["these bars are simulated; with your keys, this fetches real ones into another store:", data.commands.real];
  else if (missing) next = [`fetches ${plural(missing, "missing session")} of symbols, and what is new:`, data.commands.update];
  else if (data.commands.cover) next = ["fetches and covers bars that were only imported or stored:", data.commands.cover];
  else if (failed) next = ["tries again what failed, and fetches what is new:", data.commands.update];
  const [why, command] = next;
  $("next-why").textContent = why;
  $("next-command").textContent = command;
  $("next").hidden = !data.series;
  $("next-copy").addEventListener("click", async () => {
    let copied = true;
    try { await navigator.clipboard.writeText(command); } catch { copied = select($("next-command")) && document.execCommand("copy"); }
    $("next-copy").textContent = copied ? "Copied" : "Selected";
  });
}

function select(node) {
  getSelection().selectAllChildren(node);
  return true;
}

function theme(redraw) {
  const button = $("theme"), root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("data-engine-theme"); } catch { /* some browsers store nothing for local files */ }
  const apply = () => {
    const dark = chosen ? chosen === "dark" : system.matches;
    themed(dark ? "dark" : "light");
    button.setAttribute("aria-pressed", String(dark));
    redraw();
  };
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("data-engine-theme", chosen); } catch { /* the choice is not stored */ }
    apply();
  });
  system.addEventListener("change", apply);
  addEventListener("beforeprint", () => { themed("light"); redraw(); });
  addEventListener("afterprint", apply);
  apply();
}

function coverageSection(data, onPick) {
  const map = new HeatMap($("map"), $("map-readout"), onPick);
  const select = $("dataset");
  let rows = [];
  select.replaceChildren(...data.datasets.map((dataset, number) => el("option", { value: String(number) }, dataset.name)));
  $("dataset-label").hidden = data.datasets.length < 2;
  const bars = data.datasets.map((dataset) => dataset.series.reduce((sum, series) => sum + series.total, 0));
  if (bars.length) select.value = String(bars.indexOf(Math.max(...bars)));
  const missing = (series) => series.missing.reduce((sum, one) => sum + one, 0);
  const show = () => {
    const dataset = data.datasets[+select.value];
    if (!dataset) {
      $("map").hidden = true;
      $("map-help").hidden = true;
      $("map-readout").textContent = "The store has no series.";
      return;
    }
    const word = $("find").value.trim().toUpperCase();
    rows = dataset.series.filter((series) => series.symbol.toUpperCase().includes(word));
    if ($("order").value === "missing") rows = [...rows].sort((one, other) => missing(other) - missing(one));
    if ($("order").value === "bars") rows = [...rows].sort((one, other) => other.total - one.total);
    const table = $("as-table").getAttribute("aria-pressed") === "true";
    $("map").hidden = table;
    $("map-help").hidden = table;
    $("map-readout").textContent = rows.length ? "\u00a0" : "No symbol matches.";
    $("map-table").hidden = !table;
    if (table) $("map-table").replaceChildren(coverageTable(dataset, rows, data.states));
    else map.show(dataset, rows, data.states);
    legend($("legend"), data.states, rows);
  };
  select.addEventListener("change", show);
  $("find").addEventListener("input", show);
  $("order").addEventListener("change", show);
  $("as-table").addEventListener("click", () => {
    const pressed = $("as-table").getAttribute("aria-pressed") !== "true";
    $("as-table").setAttribute("aria-pressed", String(pressed));
    show();
  });
  show();
  return () => { map.draw(); legend($("legend"), data.states, rows); };
}

const PRESETS = { days: [["1 M", 21], ["3 M", 63], ["6 M", 126], ["1 Y", 252], ["All", Infinity]], minutes: [["1 D", 1], ["2 D", 2], ["5 D", 5], ["All", Infinity]] };

class ChartSection {
  constructor(data) {
    this.data = data;
    this.chart = new CandleChart($("candles"), $("chart-readout"), () => this.moved());
    this.charts = data.charts.map((chart) => {
      let day = 0;
      return { ...chart, days: chart.days.map((step) => (day += step)) };
    });
    $("prices").replaceChildren(...this.charts.map((chart, number) => el("option", { value: String(number) }, `${chart.adjustment} · ${chart.feed}`)));
    $("prices-label").hidden = this.charts.length < 2;
    $("prices").addEventListener("change", () => this.choose(this.symbol));
    $("symbol").addEventListener("change", () => this.choose($("symbol").value.trim().toUpperCase()));
    $("bars").addEventListener("change", () => this.choose(this.symbol));
    for (const id of ["from", "to"]) $(id).addEventListener("change", () => this.dated());
    $("chart-details").addEventListener("toggle", () => this.moved());
    this.ready = this.choose(null);
  }

  get group() { return this.charts[+$("prices").value || 0]; }

  async choose(symbol, year, month) {
    const group = this.group;
    if (!group || !group.symbols.length) {
      $("candles").hidden = $("chart-help").hidden = $("chart-details").hidden = true;
      $("chart-note").textContent = "The store has no bars of a day or shorter.";
      return;
    }
    $("symbols").replaceChildren(...group.symbols.map((one) => el("option", { value: one })));
    const place = group.symbols.indexOf(symbol === null ? group.symbols[0] : symbol);
    if (place < 0) {
      $("chart-readout").textContent = `${symbol} has no candles in this report.`;
      $("symbol").value = this.symbol || "";
      return;
    }
    this.symbol = $("symbol").value = group.symbols[place];
    const charts = this.charts.length, number = +$("prices").value || 0;
    const hasMinutes = packed(charts, number, 1, place) !== "";
    if (!hasMinutes || year !== undefined) $("bars").value = "days";
    $("bars").options[1].disabled = !hasMinutes;
    $("bars").options[1].textContent = hasMinutes ? `${group.intraday}, last sessions` : "minutes (not in this report)";
    const kind = $("bars").value;
    const bars = await unpack(packed(charts, number, kind === "minutes" ? 1 : 0, place));
    const step = kind === "minutes" ? barMinutes(group.intraday) : 1;
    const slots = kind === "minutes" ? minuteSlots(bars, step, group.hours) : daySlots(group.days, bars);
    const splits = kind === "days" ? (group.splits[this.symbol] || []).map(([day, text]) => [lower(group.days, day), text]) : [];
    this.chart.show(`${this.symbol}, ${kind === "minutes" ? group.intraday : "one per session"}`, bars, slots, splits);
    this.presets(kind);
    this.note(group, kind, hasMinutes);
    $("chart-readout").textContent = "\u00a0";
    if (year !== undefined) {
      const first = dayOrdinal(`${year}-${String(month + 1).padStart(2, "0")}-01`);
      const last = dayOrdinal(`${month === 11 ? year + 1 : year}-${String(((month + 1) % 12) + 1).padStart(2, "0")}-01`);
      const from = lower(group.days, first), to = lower(group.days, last);
      const air = Math.max(0, (40 - (to - from)) / 2);
      this.chart.view(from - air, to + air);
    } else this.preset(kind === "minutes" ? 1 : 126);
  }

  presets(kind) {
    $("presets").replaceChildren(...PRESETS[kind].map(([name, size]) => {
      const button = el("button", { type: "button" }, name);
      button.addEventListener("click", () => this.preset(size));
      return button;
    }), ...[["−", 1 / 0.6, "Zoom out"], ["+", 0.6, "Zoom in"]].map(([name, by, label]) => {
      const button = el("button", { type: "button", title: label, "aria-label": label }, name);
      button.addEventListener("click", () => this.chart.zoom(by));
      return button;
    }));
  }

  preset(size) {
    const { slots, bars } = this.chart;
    const end = bars.n ? slots.of[bars.n - 1] + 1 : slots.n;
    if (slots.kind === "minutes") {
      const start = slots.starts.at(-Math.min(size, slots.starts.length));
      this.chart.view(start ? start.slot : 0, slots.n);
    } else if (size === Infinity) this.chart.view(bars.n ? slots.of[0] : 0, end);
    else this.chart.view(end - size, end);
  }

  note(group, kind, hasMinutes) {
    const made = [];
    const hours = group.feed === "sip" || group.feed === "iex" ? "regular hours" : "each New York day";
    if (kind === "days") {
      made.push(group.from_minutes ? `A candle is the daily bar of the session or, if there is none, made from the minutes of ${hours}.` : "Candles are daily bars.");
      if (this.data.quick && group.intraday) made.push("Quick report: only the latest year of minutes was read.");
      made.push(group.rounded ? "To keep the report small, prices are rounded to 0.025 % and volumes to 2 %; run data-engine report SYMBOL for exact prices." : "Volumes are rounded to 0.1 %.");
      if (group.cut) made.push(`Candles before ${group.cut} do not fit into this report.`);
    } else made.push("Regular hours are shaded; times are New York time. Minutes without trades have no bar.");
    if (group.intraday) {
      const out = group.left_out.length;
      if (hasMinutes) made.push(`This report has the minutes of the last ${plural(group.minutes, "session")}; pass --minutes N for more.`);
      else if (!group.minutes) made.push("This report has no minutes; pass --minutes 5 for those of five sessions.");
      else if (group.left_out.includes(this.symbol)) made.push(`The minutes of this symbol and of ${plural(out - 1, "other symbol")} do not fit into this report; run data-engine report ${this.symbol} --minutes ${group.minutes}`);
      else made.push("No minutes of the last sessions are stored.");
    }
    $("chart-note").textContent = made.join(" ");
  }

  edges() {
    const { slots, from, to } = this.chart;
    const day = (slot) => slots.kind === "minutes" ? newYork(slots.minuteOf(slot)).day : dayText(this.group.days[slot]);
    return slots.n ? [day(Math.max(0, Math.floor(from))), day(Math.min(slots.n - 1, Math.ceil(to) - 1))] : ["", ""];
  }

  moved() {
    [$("from").value, $("to").value] = this.edges();
    if ($("chart-details").open) $("chart-table").replaceChildren(this.chart.table(300));
  }

  dated() {
    const { slots } = this.chart;
    if (!$("from").value || !$("to").value) return;
    let from, to;
    if (slots.kind === "minutes") {
      const inside = slots.starts.filter((start) => start.day >= $("from").value && start.day <= $("to").value);
      if (!inside.length) { $("chart-readout").textContent = "This report has no minutes of these days."; return; }
      const next = slots.starts[slots.starts.indexOf(inside.at(-1)) + 1];
      [from, to] = [inside[0].slot, next ? next.slot : slots.n];
    } else [from, to] = [lower(this.group.days, dayOrdinal($("from").value)), lower(this.group.days, dayOrdinal($("to").value) + 1)];
    if (to <= from) { $("chart-readout").textContent = "This range has no session."; return; }
    $("chart-readout").textContent = "\u00a0";
    this.chart.view(from, to);
  }
}

function barMinutes(timeframe) {
  const [, amount, unit] = timeframe.match(/^(\d+)(\w+)$/);
  return unit === "Hour" ? 60 * +amount : +amount;
}

/* The index of the first value that is not less. */
function lower(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

async function start() {
  const data = await head();
  showTop(data);
  const section = new ChartSection(data);
  const redrawMap = coverageSection(data, (symbol, year, month) => {
    section.choose(symbol, year, month);
    $("chart").scrollIntoView();
    $("candles").focus({ preventScroll: true });
  });
  showFlags(data);
  showHistory(data);
  showRuns(data);
  theme(() => { redrawMap(); section.chart.draw(); });
  await section.ready;
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  $("problem").textContent = `Cannot show this report: ${error.message}. It needs a browser from 2023 or later.`;
  $("problem").hidden = false;
  throw error;
});
