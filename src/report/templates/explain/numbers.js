// Numbers out of the JSON of an Explanation (src/explain/encode.rs), and numbers as words.

const decoded = new WeakMap();
function raw(text) {
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}
// Bytes are texts in JSON, so the object that holds them is the key.
function bytes(holder, name = "data") {
  let of = decoded.get(holder);
  if (!of) decoded.set(holder, (of = {}));
  return (of[name] = of[name] || raw(holder[name]));
}
// Numbers to the last bit; with a mask only those that are not 0 are there.
function floats(holder) {
  if (!holder) return null;
  let of = decoded.get(holder);
  if (of) return of;
  const packed = raw(holder.f32);
  const view = new DataView(packed.buffer);
  const mask = holder.mask === undefined ? null : raw(holder.mask);
  of = new Float32Array(holder.n);
  for (let i = 0, at = 0; i < holder.n; i++) {
    if (mask && !((mask[i >> 3] >> (i & 7)) & 1)) continue;
    of[i] = view.getFloat32(at, true);
    at += 4;
  }
  decoded.set(holder, of);
  return of;
}
const unbyte = (b, low, high) => low + (b / 255) * (high - low);

// The smallest and the largest number. Loops, because a picture's numbers as arguments of Math.max do not fit onto the stack.
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}
const largest = (values) => range(values)[1];

const f32 = Math.fround;
function num(v, digits = 4) {
  if (v === null || v === undefined) return "";
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 1e5 || size < 1e-4) return v.toExponential(Math.max(digits - 2, 1)).replace(/-/g, "\u2212");
  return Number(v.toPrecision(digits)).toString().replace("-", "\u2212");
}
const percent = (p) => `${(100 * p).toFixed(p > 0.0995 && p < 0.9995 ? 1 : 2)} %`;
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
function scaled(n) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) if (n >= size) return `${(n / size).toPrecision(3)} ${unit}`;
  return String(n);
}
const by = (list) => list.join(" \u00d7 ");
const count = (n, one, many = `${one}s`) => `${grouped(n)} ${n === 1 ? one : many}`;
