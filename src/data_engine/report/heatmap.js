/* The coverage map: a row per symbol, a column per month. The canvas has the size of the visible part, and only that is drawn. */

const STATE_WORDS = {
  no_session: ["no session", "no session"],
  not_requested: ["not requested", "not requested"],
  complete: ["complete", "complete, final"],
  provisional: ["provisional", "complete, but Alpaca may still revise some sessions"],
  requested: ["requested part", "complete for the requested part of the month"],
  partial: ["partial", "partial, other requested sessions are missing"],
  missing: ["missing", "requested, but missing"],
  empty: ["empty", "complete, without bars"],
  unverified: ["unverified", "bars are stored, and nothing of the month was requested"],
  filled: ["filled", "bars of another source fill gaps"],
};
const LEGEND = ["complete", "provisional", "requested", "partial", "missing", "empty", "unverified", "filled", "not_requested", "no_session"];

/* Every state has its own mark, not only its color. */
function drawState(pen, state, x, y, width, height) {
  if (state === "no_session") return;
  pen.fillStyle = color(state === "requested" ? "not_requested" : state === "partial" ? "missing" : state);
  pen.fillRect(x, y, width, height);
  if (state === "requested" || state === "partial") {
    pen.fillStyle = color(state);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x + width, y);
    pen.lineTo(x, y + height);
    pen.fill();
  }
  const size = Math.min(width, height);
  pen.strokeStyle = pen.fillStyle = color("mark");
  pen.lineWidth = 1.25;
  const middle = [x + width / 2, y + height / 2], arm = size * 0.24;
  if (state === "missing" && size >= 6) {
    pen.beginPath();
    pen.moveTo(middle[0] - arm, middle[1] - arm);
    pen.lineTo(middle[0] + arm, middle[1] + arm);
    pen.moveTo(middle[0] + arm, middle[1] - arm);
    pen.lineTo(middle[0] - arm, middle[1] + arm);
    pen.stroke();
  } else if (state === "provisional" && size >= 6) {
    pen.beginPath();
    pen.arc(middle[0], middle[1], size * 0.15, 0, 7);
    pen.fill();
  } else if (state === "unverified" && size >= 6) {
    pen.beginPath();
    pen.arc(middle[0], middle[1], size * 0.2, 0, 7);
    pen.stroke();
  } else if (state === "filled" && size >= 6) {
    pen.fillRect(middle[0] - 0.75, middle[1] - arm, 1.5, 2 * arm);
  } else if (state === "empty" && size >= 6) {
    pen.fillRect(middle[0] - arm, middle[1] - 0.75, 2 * arm, 1.5);
  }
}

/* A corner of a month in which bars changed after they were final. */
function drawChanged(pen, x, y, width) {
  const size = Math.min(6, width);
  pen.fillStyle = color("ink");
  pen.beginPath();
  pen.moveTo(x + width - size, y);
  pen.lineTo(x + width, y);
  pen.lineTo(x + width, y + size);
  pen.fill();
}

class HeatMap {
  constructor(box, readout, onPick) {
    this.box = box;
    this.space = box.firstElementChild;
    this.canvas = box.querySelector("canvas");
    this.readout = readout;
    this.onPick = onPick;
    this.at = null;
    this.top = 30;
    this.rowHeight = 17;
    box.addEventListener("scroll", () => this.soon());
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.point(null));
    box.addEventListener("click", (event) => this.pick(event));
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("focus", () => { if (!this.at && this.rows.length) this.move(0, this.months - 1); });
    new ResizeObserver(() => this.layout()).observe(box);
  }

  show(dataset, rows, states) {
    this.dataset = dataset;
    this.rows = rows;
    this.states = states;
    this.changed = rows.map((row) => new Set(row.later.map(([month]) => month)));
    this.months = dataset.sessions.length;
    this.at = null;
    this.box.scrollTop = 0;
    this.layout();
    this.box.scrollLeft = this.space.offsetWidth;
    this.draw();
    this.box.setAttribute("aria-label", `Coverage of ${dataset.name}: ${plural(rows.length, "symbol")}, ${plural(this.months, "month")}`);
  }

  layout() {
    if (!this.dataset) return;
    const pen = this.canvas.getContext("2d");
    pen.font = "11px system-ui, sans-serif";
    const longest = this.rows.reduce((most, row) => Math.max(most, row.symbol.length), 4);
    this.left = Math.min(110, 18 + 7.4 * longest);
    const room = this.box.clientWidth - this.left - 8;
    this.cell = Math.max(7, Math.min(44, room / this.months));
    this.space.style.width = `${Math.max(this.left + this.months * this.cell + 8, 10)}px`;
    this.space.style.height = `${this.top + this.rows.length * this.rowHeight + 6}px`;
    this.draw();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  x(month) { return Math.round(this.left + month * this.cell); }

  monthOf(number) {
    const [year, month] = this.dataset.first;
    const all = year * 12 + month - 1 + number;
    return [Math.floor(all / 12), all % 12];
  }

  draw() {
    if (!this.dataset) return;
    const width = Math.min(this.box.clientWidth, this.space.offsetWidth), height = Math.min(this.box.clientHeight, this.space.offsetHeight);
    const pen = sized(this.canvas, width, height);
    const [x0, y0] = [this.box.scrollLeft, this.box.scrollTop];
    const first = Math.max(0, Math.floor(y0 / this.rowHeight)), last = Math.min(this.rows.length, Math.ceil((y0 + height) / this.rowHeight));
    const from = Math.max(0, Math.floor(x0 / this.cell)), to = Math.min(this.months, Math.ceil((x0 + width) / this.cell));
    const gap = this.cell > 16 ? 2 : 1;
    for (let row = first; row < last; row++) {
      const y = this.top + row * this.rowHeight - y0;
      const states = this.rows[row].states;
      for (let month = from; month < to; month++) {
        const [x, end] = [this.x(month) - x0, this.x(month + 1) - x0];
        drawState(pen, this.states[+states[month]], x, y + 1, end - x - gap, this.rowHeight - 2);
        if (this.changed[row].has(month)) drawChanged(pen, x, y + 1, end - x - gap);
      }
    }
    this.drawFrame(pen, width, height, x0, y0, first, last);
  }

  drawFrame(pen, width, height, x0, y0, first, last) {
    const paper = color("card"), ink = color("ink"), soft = color("soft");
    if (this.at) {
      const x = this.x(this.at[1]) - x0, y = this.top + this.at[0] * this.rowHeight - y0;
      pen.strokeStyle = ink;
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, y, this.x(this.at[1] + 1) - this.x(this.at[1]) + 1, this.rowHeight);
    }
    pen.fillStyle = paper;
    pen.fillRect(0, 0, this.left - 2, height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (let row = first; row < last; row++) {
      const symbol = this.rows[row].symbol;
      pen.fillStyle = this.at && this.at[0] === row ? ink : soft;
      const text = symbol.length > 13 ? symbol.slice(0, 12) + "…" : symbol;
      pen.fillText((this.rows[row].problem ? "! " : "") + text, 10, this.top + (row + 0.5) * this.rowHeight - y0);
    }
    pen.fillStyle = paper;
    pen.fillRect(0, 0, width, this.top);
    pen.save();
    pen.beginPath();
    pen.rect(this.left - 1, 0, width, this.top);
    pen.clip();
    for (let month = 0; month < this.months; month++) {
      const [year, of] = this.monthOf(month);
      const x = this.x(month) - x0;
      if (of === 0 || month === 0) {
        const room = Math.min(12 - of, this.months - month) * this.cell;
        pen.fillStyle = ink;
        if (room > 28 || this.months === 1) pen.fillText(String(year), x, 10);
        pen.fillStyle = color("line");
        pen.fillRect(x - 1, 3, 1, this.top - 5);
      }
      pen.fillStyle = soft;
      if (this.cell >= 24) pen.fillText(MONTHS[of], x, 22);
      else if (this.cell >= 12) pen.fillText(MONTHS[of][0], x + this.cell / 2 - 4, 22);
      else if (of % 3 === 0) pen.fillRect(x, this.top - 5, 1, 4);
    }
    pen.restore();
  }

  place(event) {
    const box = this.box.getBoundingClientRect();
    const x = event.clientX - box.left - this.box.clientLeft, y = event.clientY - box.top - this.box.clientTop;
    if (x < this.left || y < this.top) return null;
    const month = Math.floor((x - this.left + this.box.scrollLeft) / this.cell), row = Math.floor((y - this.top + this.box.scrollTop) / this.rowHeight);
    return month < this.months && row < this.rows.length ? [row, month] : null;
  }

  point(event) {
    const at = event && this.place(event);
    if (!at) return;
    this.at = at;
    this.say();
    this.soon();
  }

  pick(event) {
    const at = this.place(event);
    if (at) { this.at = at; this.say(); this.chosen(); }
  }

  chosen() {
    const [year, month] = this.monthOf(this.at[1]);
    this.onPick(this.rows[this.at[0]].symbol, year, month);
  }

  key(event) {
    if (!this.rows.length || event.altKey || event.metaKey) return;
    const [row, month] = this.at || [0, this.months - 1];
    const page = Math.max(1, Math.floor((this.box.clientHeight - this.top) / this.rowHeight) - 1);
    const to = {
      ArrowUp: [row - 1, month], ArrowDown: [row + 1, month], ArrowLeft: [row, month - 1], ArrowRight: [row, month + 1],
      PageUp: [row - page, month], PageDown: [row + page, month],
      Home: event.ctrlKey ? [0, 0] : [row, 0], End: event.ctrlKey ? [this.rows.length - 1, this.months - 1] : [row, this.months - 1],
    }[event.key];
    if (to) { event.preventDefault(); this.move(...to); }
    else if (event.key === "Enter" && this.at) { event.preventDefault(); this.chosen(); }
  }

  move(row, month) {
    row = Math.max(0, Math.min(this.rows.length - 1, row));
    month = Math.max(0, Math.min(this.months - 1, month));
    this.at = [row, month];
    const x = month * this.cell, y = row * this.rowHeight, box = this.box;
    const wide = box.clientWidth - this.left, high = box.clientHeight - this.top;
    if (x < box.scrollLeft) box.scrollLeft = x;
    else if (x + this.cell > box.scrollLeft + wide) box.scrollLeft = x + this.cell - wide + 8;
    if (y < box.scrollTop) box.scrollTop = y;
    else if (y + this.rowHeight > box.scrollTop + high) box.scrollTop = y + this.rowHeight - high + 6;
    this.say();
    this.draw();
  }

  say() {
    const [row, month] = this.at;
    const series = this.rows[row], [year, of] = this.monthOf(month);
    const state = this.states[+series.states[month]], sessions = this.dataset.sessions[month];
    const unit = this.dataset.timeframe.endsWith("Week") ? "week" : this.dataset.timeframe.endsWith("Month") ? "bar" : "session";
    const parts = [];
    if (sessions && state !== "not_requested") {
      parts.push(`${series.final[month]} of ${plural(sessions, unit)} final`);
      if (series.provisional[month]) parts.push(`${series.provisional[month]} provisional`);
      if (series.missing[month]) parts.push(`${series.missing[month]} missing`);
      if (this.dataset.intraday && series.bars[month]) parts.push(plural(series.bars[month], "bar"));
    }
    for (const [many, words] of laterOf(series, month)) parts.push(`${plural(many, "bar")} ${words}`);
    if (series.failure && series.missing[month]) parts.push(`last run: ${series.failure}`);
    if (series.ended) parts.push(series.ended);
    if (series.problem) parts.push(series.problem);
    this.readout.replaceChildren(el("b", {}, series.symbol), `, ${MONTHS[of]} ${year}: ${[STATE_WORDS[state][1], ...parts].join(" · ")}`);
  }
}

function legend(list, states, rows) {
  const counts = new Array(states.length).fill(0);
  for (const row of rows) for (let i = 0; i < row.states.length; i++) counts[+row.states[i]]++;
  const items = LEGEND.filter((state) => counts[states.indexOf(state)]).map((state) => {
    const canvas = el("canvas", { "aria-hidden": "true" });
    const pen = sized(canvas, 14, 14);
    drawState(pen, state, 0, 0, 14, 14);
    if (state === "no_session") { pen.strokeStyle = color("empty"); pen.strokeRect(0.5, 0.5, 13, 13); }
    return el("li", { title: STATE_WORDS[state][1] }, canvas, `${STATE_WORDS[state][0]} ${count(counts[states.indexOf(state)])}`);
  });
  const changed = rows.reduce((sum, row) => sum + row.later.length, 0);
  if (changed) {
    const canvas = el("canvas", { "aria-hidden": "true" });
    drawChanged(sized(canvas, 14, 14), 2, 2, 10);
    items.push(el("li", { title: "bars came late, were revised after they were final, or were removed" }, canvas, `changed later ${count(changed)}`));
  }
  list.replaceChildren(...items);
}

/* The same as a table: a row per symbol, a column per year. */
function coverageTable(dataset, rows, states) {
  const [year, month] = dataset.first;
  const years = new Map();
  dataset.sessions.forEach((sessions, number) => {
    const key = Math.floor((year * 12 + month - 1 + number) / 12);
    if (!years.has(key)) years.set(key, []);
    years.get(key).push(number);
  });
  const columns = [...years.keys()];
  const header = el("tr", {}, el("th", { scope: "col" }, "Symbol"), el("th", { scope: "col", class: "number" }, "Bars"),
    ...columns.map((one) => el("th", { scope: "col" }, String(one))));
  const body = rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.symbol), el("td", { class: "number" }, count(row.total)),
    ...columns.map((one) => el("td", {}, yearText(row, years.get(one), states)))));
  return el("table", {}, el("caption", {}, `${dataset.name}: months by state`), el("thead", {}, header), el("tbody", {}, ...body));
}

function yearText(row, numbers, states) {
  const counts = {};
  for (const number of numbers) {
    const state = states[+row.states[number]];
    if (state !== "no_session" && state !== "not_requested") counts[state] = (counts[state] || 0) + 1;
  }
  const changed = row.later.filter(([month]) => numbers.includes(month)).length;
  const parts = LEGEND.filter((state) => counts[state]).map((state) => `${counts[state]} ${STATE_WORDS[state][0]}`);
  return [...parts, ...(changed ? [`${changed} changed later`] : [])].join(", ") || "–";
}
