/* Text on the screen. Text from the store becomes a text node: it cannot be markup. */

const $ = (id) => document.getElementById(id);
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const count = (value) => whole.format(value);
const plural = (value, one, many) => `${count(value)} ${value === 1 ? one : many || one + "s"}`;

function el(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function price(value, decimals) {
  return value.toFixed(Math.abs(value) >= 10000 ? 2 : decimals);
}

/* Days are ordinals (1 is 1 January of year 1); minutes count from 1970 and are shown in New York time. */
const dayDate = (ordinal) => new Date((ordinal - 719163) * 86400000);
const dayText = (ordinal) => dayDate(ordinal).toISOString().slice(0, 10);
const dayOrdinal = (text) => Math.round(Date.parse(text + "T00:00:00Z") / 86400000) + 719163;
const clock = new Intl.DateTimeFormat("en-CA", {
  timeZone: "America/New_York", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
function newYork(minute) {
  const parts = Object.fromEntries(clock.formatToParts(new Date(minute * 60000)).map((part) => [part.type, part.value]));
  return { day: `${parts.year}-${parts.month}-${parts.day}`, time: `${parts.hour}:${parts.minute}` };
}
const timestamp = (iso) => iso.slice(0, 16).replace("T", " ");
/* A range of New York days as days, the last included; any other as UTC. */
function rangeText(start, end) {
  const [from, to] = [start, end].map((iso) => newYork(Date.parse(iso) / 60000));
  if (from.time !== "00:00" || to.time !== "00:00") return `${timestamp(start)} to ${timestamp(end)} UTC`;
  return `${from.day} to ${dayText(dayOrdinal(to.day) - 1)}`;
}
const weekday = (ordinal) => ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][dayDate(ordinal).getUTCDay()];

function durationText(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const all = Math.round(seconds);
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} m ${all % 60} s`;
  return `${Math.floor(all / 3600)} h ${Math.floor((all / 60) % 60)} m`;
}

/* The colors of the theme, for canvases; cached, since thousands of cells need them. */
const colors = new Map();
function color(name) {
  if (!colors.has(name)) colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colors.get(name);
}
function themed(name) {
  document.documentElement.dataset.theme = name;
  colors.clear();
}

function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}
