/* Candles and volume. A slot is a session, or a minute of one; a slot without a bar stays empty, so that gaps are visible. */

class CandleChart {
  constructor(box, readout, onMove) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.readout = readout;
    this.onMove = onMove;
    this.from = 0;
    this.to = 1;
    this.right = 62;
    this.bottom = 24;
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerdown", (event) => this.grab(event));
    box.addEventListener("pointerup", () => { this.grabbed = null; });
    box.addEventListener("pointercancel", () => { this.grabbed = null; });
    box.addEventListener("pointerleave", () => { this.y = null; this.soon(); });
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /* splits: [slot, text] of each; bars: the result of `unpack`; slots: {n, of: slot of each bar, label(slot), regular(slot), kind: "days" | "minutes"}. */
  show(name, bars, slots, splits) {
    this.name = name;
    this.splits = splits;
    this.bars = bars;
    this.slots = slots;
    this.at = new Int32Array(slots.n).fill(-1);
    for (let i = 0; i < bars.n; i++) this.at[slots.of[i]] = i;
    this.cursor = null;
    this.y = null;
    this.box.setAttribute("aria-label", `Candles of ${name}`);
  }

  view(from, to, quietly) {
    const n = this.slots.n;
    const span = Math.max(Math.min(8, n), Math.min(n, to - from));
    this.from = Math.max(0, Math.min(n - span, from));
    this.to = this.from + span;
    this.soon();
    if (!quietly) this.onMove();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  get wide() { return this.box.clientWidth - this.right; }

  /* Slots narrower than a pixel or two are drawn as one candle, from the first open to the last close. */
  groups() {
    const each = Math.max(1, Math.ceil(2.6 / (this.wide / (this.to - this.from))));
    const made = [];
    const { o, h, l, c, v } = this.bars;
    for (let slot = Math.floor(this.from / each) * each; slot < this.to; slot += each) {
      let group = null;
      for (let one = Math.max(slot, 0); one < Math.min(slot + each, this.slots.n); one++) {
        const i = this.at[one];
        if (i < 0) continue;
        if (!group) group = { slot, first: one, last: one, o: o[i], h: h[i], l: l[i], c: c[i], v: 0 };
        group.h = Math.max(group.h, h[i]);
        group.l = Math.min(group.l, l[i]);
        group.c = c[i];
        group.v += v[i];
        group.last = one;
      }
      if (group) made.push(group);
    }
    return [each, made];
  }

  draw() {
    if (!this.slots) return;
    const width = this.box.clientWidth, height = this.box.clientHeight;
    const pen = sized(this.canvas, width, height);
    const wide = this.wide, high = height - this.bottom, split = Math.round(high * 0.8);
    const [each, groups] = this.groups();
    const step = wide / (this.to - this.from);
    const x = (slot) => (slot - this.from) * step;
    pen.font = "11px system-ui, sans-serif";
    this.shade(pen, x, high, step);
    const shown = groups.filter((group) => group.slot + each > this.from);
    if (!shown.length) {
      pen.fillStyle = color("soft");
      pen.textAlign = "center";
      pen.fillText(this.bars.n ? "No bars in this range" : "This report has no bars of this symbol", wide / 2, high / 2);
      pen.textAlign = "left";
      this.scale = null;
      return;
    }
    let low = Infinity, top = -Infinity, most = 0;
    for (const group of shown) { low = Math.min(low, group.l); top = Math.max(top, group.h); most = Math.max(most, group.v); }
    const air = (top - low) * 0.06 || Math.abs(top) * 0.01 || 1;
    low -= air; top += air;
    const y = (value) => 8 + (1 - (value - low) / (top - low)) * (split - 16);
    this.scale = { low, top, split, high, each, y };
    this.priceAxis(pen, wide, low, top, y);
    this.timeAxis(pen, wide, high, x, step);
    const body = Math.max(1, Math.min(13, each * step * 0.68));
    for (const group of shown) this.candle(pen, group, x(group.slot) + (each * step) / 2, body, y, high, split, most);
    this.marks(pen, wide, split, x);
    this.cross(pen, wide, high, x, step, each);
  }

  /* A line before the first session at the new price, and the ratio. */
  marks(pen, wide, split, x) {
    for (const [slot, text] of this.splits) {
      if (slot < this.from || slot > this.to) continue;
      const place = Math.round(x(slot)), width = pen.measureText(text).width;
      pen.fillStyle = color("accent");
      pen.fillRect(place, 0, 1, split);
      pen.fillText(text, place + 4 + width > wide ? place - 4 - width : place + 4, 12);
    }
  }

  candle(pen, group, middle, body, y, high, split, most) {
    const up = group.c >= group.o;
    pen.fillStyle = color("volume");
    const tall = most ? (group.v / most) * (high - split - 6) : 0;
    pen.fillRect(middle - body / 2, high - tall, body, tall);
    pen.strokeStyle = pen.fillStyle = color(up ? "up" : "down");
    pen.lineWidth = 1;
    const [a, b] = [y(Math.max(group.o, group.c)), y(Math.min(group.o, group.c))];
    pen.beginPath();
    if (body < 3) {
      pen.moveTo(middle, y(group.h));
      pen.lineTo(middle, Math.max(y(group.l), y(group.h) + 1));
      pen.stroke();
      return;
    }
    pen.moveTo(middle, y(group.h)); pen.lineTo(middle, a);
    pen.moveTo(middle, b); pen.lineTo(middle, y(group.l));
    pen.stroke();
    /* Rising bars are hollow, falling ones filled: color is not the only difference. */
    if (up && body >= 4 && b - a >= 2) {
      pen.fillStyle = color("card");
      pen.fillRect(middle - body / 2, a, body, b - a);
      pen.strokeRect(middle - body / 2 + 0.5, a + 0.5, body - 1, Math.max(b - a - 1, 0.5));
    } else pen.fillRect(middle - body / 2, a, body, Math.max(b - a, 1));
  }

  shade(pen, x, high, step) {
    if (this.slots.kind !== "minutes") return;
    pen.fillStyle = color("shade");
    let begin = null;
    for (let slot = Math.floor(this.from); slot <= Math.ceil(this.to); slot++) {
      const inside = slot < this.slots.n && slot < this.to && this.slots.regular(slot);
      if (inside && begin === null) begin = slot;
      if (!inside && begin !== null) { pen.fillRect(x(begin), 0, (slot - begin) * step, high); begin = null; }
    }
  }

  priceAxis(pen, wide, low, top, y) {
    const rough = (top - low) / 6, size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * size).find((one) => one >= rough);
    const decimals = Math.max(0, Math.min(4, -Math.floor(Math.log10(step) + 1e-9) + (step / size === 2.5 ? 1 : 0)));
    pen.textBaseline = "middle";
    for (let value = Math.ceil(low / step) * step; value < top; value += step) {
      pen.fillStyle = color("line");
      pen.fillRect(0, Math.round(y(value)), wide, 1);
      pen.fillStyle = color("soft");
      pen.fillText(value.toFixed(decimals), wide + 8, y(value));
    }
  }

  timeAxis(pen, wide, high, x, step) {
    pen.fillStyle = color("line");
    pen.fillRect(0, high, wide, 1);
    let last = -Infinity, before = null;
    for (let slot = Math.max(0, Math.floor(this.from)); slot < Math.min(this.slots.n, this.to); slot++) {
      const [rank, text] = this.slots.tick(slot, this.to - this.from);
      if (text === before) continue;
      before = text;
      if (!rank || x(slot) - last < 62 || x(slot) < 0 || x(slot) > wide - 36) continue;
      last = x(slot);
      pen.fillStyle = color("line");
      pen.fillRect(Math.round(x(slot)), 0, 1, high + 4);
      pen.fillStyle = color("soft");
      pen.fillText(text, x(slot) + 3, high + 14);
    }
  }

  cross(pen, wide, high, x, step, each) {
    if (this.cursor === null) return;
    const slot = Math.floor(this.cursor / each) * each;
    if (slot + each <= this.from || slot >= this.to) return;
    const middle = x(slot) + (each * step) / 2;
    pen.strokeStyle = color("soft");
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(middle, 0); pen.lineTo(middle, high);
    if (this.y !== null && this.y < this.scale.split) { pen.moveTo(0, this.y); pen.lineTo(wide, this.y); }
    pen.stroke();
    pen.setLineDash([]);
    if (this.y !== null && this.y < this.scale.split) {
      const { low, top, split } = this.scale;
      const value = low + (1 - (this.y - 8) / (split - 16)) * (top - low);
      pen.fillStyle = color("ink");
      pen.fillRect(wide + 2, this.y - 9, this.right - 2, 18);
      pen.fillStyle = color("card");
      pen.fillText(price(value, 2), wide + 8, this.y);
    }
  }

  slotAt(event) {
    const box = this.box.getBoundingClientRect();
    return [this.from + ((event.clientX - box.left) / this.wide) * (this.to - this.from), event.clientY - box.top];
  }

  grab(event) {
    if (!this.slots || event.button) return;
    this.grabbed = { x: event.clientX, from: this.from };
    this.box.setPointerCapture(event.pointerId);
  }

  point(event) {
    if (!this.slots) return;
    if (this.grabbed && Math.abs(event.clientX - this.grabbed.x) > 3) {
      const span = this.to - this.from;
      const from = this.grabbed.from - ((event.clientX - this.grabbed.x) / this.wide) * span;
      this.view(from, from + span);
    }
    const [slot, y] = this.slotAt(event);
    this.y = y;
    if (slot >= this.from && slot < this.to) this.go(Math.floor(slot));
  }

  go(slot) {
    this.cursor = Math.max(0, Math.min(this.slots.n - 1, slot));
    this.say();
    this.soon();
  }

  key(event) {
    if (!this.slots || event.ctrlKey || event.altKey || event.metaKey) return;
    const span = this.to - this.from, each = this.scale ? this.scale.each : 1;
    const cursor = this.cursor === null ? Math.floor(this.to - 1) : this.cursor;
    const move = event.shiftKey ? Math.floor(span) : each;
    const to = { ArrowLeft: cursor - move, ArrowRight: cursor + move, Home: 0, End: this.slots.n - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.y = null;
      this.go(this.cursor === null && !event.shiftKey && event.key.startsWith("Arrow") ? cursor : to);
      if (this.cursor < this.from) this.view(this.cursor, this.cursor + span);
      else if (this.cursor >= this.to) this.view(this.cursor + 1 - span, this.cursor + 1);
    } else if (event.key === "+" || event.key === "=") { event.preventDefault(); this.zoom(0.6); }
    else if (event.key === "-" || event.key === "_") { event.preventDefault(); this.zoom(1 / 0.6); }
  }

  zoom(by) {
    const span = this.to - this.from;
    const seen = this.cursor !== null && this.cursor >= this.from && this.cursor < this.to;
    const middle = seen ? this.cursor + 0.5 : (this.from + this.to) / 2;
    const share = (middle - this.from) / span;
    this.view(middle - span * by * share, middle + span * by * (1 - share));
  }

  say() {
    const each = this.scale ? this.scale.each : 1;
    const slot = Math.floor(this.cursor / each) * each;
    const group = this.groups()[1].find((one) => one.slot === slot);
    const label = this.slots.label(Math.min(slot, this.slots.n - 1));
    if (!group) {
      this.readout.replaceChildren(el("b", {}, label), " · no bar", this.splitText(slot, each));
      return;
    }
    const digits = this.bars.decimals;
    const name = group.first === group.last ? this.slots.label(group.first) : `${this.slots.label(group.first)} to ${this.slots.label(group.last)}`;
    const change = group.o ? `${group.c >= group.o ? "+" : "−"}${Math.abs((group.c / group.o - 1) * 100).toFixed(2)} %` : "";
    const values = [["Open", group.o], ["High", group.h], ["Low", group.l], ["Close", group.c]].map(([word, value]) => `${word} ${price(value, digits)}`);
    this.readout.replaceChildren(el("b", {}, name), ` · ${values.join("  ")}  ${change} · Volume ${short.format(group.v)}`, this.splitText(slot, each));
  }

  splitText(slot, each) {
    return this.splits.filter(([at]) => at >= slot && at < slot + each).map(([, text]) => ` · ${text}`).join("");
  }

  /* The visible bars as a table. */
  table(limit) {
    const rows = [];
    let more = 0;
    for (let slot = Math.max(0, Math.floor(this.from)); slot < Math.min(this.slots.n, this.to); slot++) {
      const i = this.at[slot];
      if (i < 0) continue;
      if (rows.length >= limit) { more++; continue; }
      const cells = [this.bars.o[i], this.bars.h[i], this.bars.l[i], this.bars.c[i]].map((value) => el("td", { class: "number" }, price(value, this.bars.decimals)));
      rows.push(el("tr", {}, el("th", { scope: "row" }, this.slots.label(slot)), ...cells, el("td", { class: "number" }, short.format(this.bars.v[i]))));
    }
    const names = ["Open", "High", "Low", "Close", "Volume"].map((name) => el("th", { scope: "col", class: "number" }, name));
    const text = `${this.name}${more ? `: the first ${limit} bars of this range; ${count(more)} more are not listed` : ""}`;
    return el("table", {}, el("caption", {}, text), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "When"), ...names)), el("tbody", {}, ...rows));
  }
}

/* Slots of sessions: all days with a candle of any symbol of the chart. */
function daySlots(days, bars) {
  return {
    kind: "days",
    n: days.length,
    of: bars.t,
    label: (slot) => `${weekday(days[slot])} ${dayText(days[slot])}`,
    regular: () => true,
    tick: (slot, span) => {
      const day = dayDate(days[slot]);
      const [year, month] = [day.getUTCFullYear(), day.getUTCMonth()];
      const newWeek = !slot || day.getUTCDay() < dayDate(days[slot - 1]).getUTCDay() || days[slot] - days[slot - 1] > 6;
      if (span < 90) return span < 14 || newWeek ? [1, `${day.getUTCDate()} ${MONTHS[month]}`] : [0, null];
      if (span < 420) return [1, `${MONTHS[month]} ${year}`];
      return [1, span < 1100 ? `${year} Q${Math.floor(month / 3) + 1}` : String(year)];
    },
  };
}

/* Slots of minutes: per New York day with bars, from the first bar to the last. */
function minuteSlots(bars, step, hours) {
  const of = new Float64Array(bars.n), starts = [];
  let n = 0, day = null, first = 0, last = 0;
  for (let i = 0; i < bars.n; i++) {
    const minute = bars.t[i];
    /* Days are hours apart, and time zone conversion is slow. */
    if (day === null || (minute - last > 240 && newYork(minute).day !== day)) {
      if (day !== null) n = starts.at(-1).slot + (last - first) / step + 1;
      day = newYork(minute).day;
      first = minute;
      starts.push({ slot: n, minute, day });
    }
    last = minute;
    of[i] = n + (minute - first) / step;
  }
  if (day !== null) n = starts.at(-1).slot + (last - first) / step + 1;
  const startOf = (slot) => {
    let [low, high] = [0, starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle].slot <= slot) low = middle; else high = middle - 1;
    }
    return starts[low];
  };
  const minuteOf = (slot) => { const start = startOf(slot); return start.minute + (slot - start.slot) * step; };
  return {
    kind: "minutes",
    n,
    of,
    starts,
    minuteOf,
    label: (slot) => { const { day: on, time } = newYork(minuteOf(slot)); return `${on} ${time}`; },
    regular: (slot) => { const minute = minuteOf(slot); return hours.some(([begin, end]) => minute >= begin && minute < end); },
    tick: (slot, span) => {
      const start = startOf(slot), minute = minuteOf(slot);
      if (span > 1500) return [1, start.day];
      const every = span < 100 ? 15 : span < 450 ? 60 : 120;
      if (slot === start.slot) return [1, start.day];
      return minute % every ? [0, null] : [1, newYork(minute).time];
    },
  };
}
