/* The data of the report: base64 of deflated JSON and candles. */

const blocks = [...document.querySelectorAll("script.data")].map((block) => block.textContent);

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

async function head() {
  return JSON.parse(new TextDecoder().decode(await inflated(bytesOf(blocks[0]))));
}

/* The packed candles of a chart: `kind` 0 is days, 1 is minutes. They are split when first needed, and unpacked per symbol. */
const split = new Map();
function packed(charts, chart, kind, place) {
  const number = 1 + kind * charts + chart;
  if (!split.has(number)) split.set(number, blocks[number].split(","));
  return split.get(number)[place] || "";
}

/* Undo candles.pack: a header, and six columns of integers, each as four planes of bytes. */
async function unpack(text) {
  if (!text) return { n: 0, t: [], o: [], h: [], l: [], c: [], v: [] };
  const all = bytesOf(text);
  const view = new DataView(all.buffer);
  const n = view.getUint32(0, true);
  const scale = view.getUint32(4, true);
  const step = view.getFloat64(8, true);
  const volumeStep = view.getFloat64(16, true);
  const planes = new Uint8Array(await inflated(all.subarray(24)));
  const column = (k) => {
    const at = 4 * k * n;
    const made = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const u = planes[at + i] | (planes[at + n + i] << 8) | (planes[at + 2 * n + i] << 16) | (planes[at + 3 * n + i] << 24);
      made[i] = (u >>> 1) ^ -(u & 1);
    }
    return made;
  };
  const [t, o, c, h, l, v] = [0, 1, 2, 3, 4, 5].map(column);
  const price = scale ? (x) => x / scale : (x) => Math.exp(x * step);
  let time = 0, before = 0, volume = 0;
  for (let i = 0; i < n; i++) {
    t[i] = time += t[i];
    const open = before + o[i];
    const close = open + c[i];
    const high = Math.max(open, close) + h[i];
    const low = Math.min(open, close) - l[i];
    before = close;
    o[i] = price(open); c[i] = price(close); h[i] = price(high); l[i] = price(low);
    v[i] = Math.expm1((volume += v[i]) * volumeStep);
  }
  return { n, t, o, h, l, c, v, decimals: scale ? Math.max(2, Math.round(Math.log10(scale))) : 2 };
}
