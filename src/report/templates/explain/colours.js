// Colours of numbers, and pictures of them.

function ramp(stops) {
  const out = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const t = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(t), stops.length - 2);
    for (let c = 0; c < 3; c++) out[3 * i + c] = Math.round(stops[k][c] + (t - k) * (stops[k + 1][c] - stops[k][c]));
  }
  return out;
}
const GREY = ramp([[0, 0, 0], [255, 255, 255]]);
const GLOW = ramp([[8, 8, 20], [70, 16, 100], [160, 44, 98], [230, 92, 48], [252, 175, 40], [252, 253, 190]]);
const SIGNED = ramp([[16, 82, 160], [92, 155, 214], [240, 240, 240], [240, 148, 72], [158, 62, 6]]);
const css = (map, t) => {
  const i = 3 * Math.max(0, Math.min(255, Math.round(255 * t)));
  return `rgb(${map[i]},${map[i + 1]},${map[i + 2]})`;
};
// The colours of numbers between low and high: with both signs, 0 in the middle.
function scale(low, high) {
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    return { map: SIGNED, low: -most, high: most, t: (v) => (v + most) / (2 * most) };
  }
  if (high <= 0 && low < 0) return { map: SIGNED, low, high: -low, t: (v) => (v - low) / (-2 * low) };
  return { map: GLOW, low, high, t: (v) => (high > low ? (v - low) / (high - low) : 0) };
}

// Draws boxes onto a canvas whose pixels are `size` wide, legible on light and on dark.
function outline(canvas, size) {
  return (row, column, rows, columns, style = MARK, width = 3) => {
    const context = canvas.getContext("2d");
    for (const [colour, thick] of [["#000", width + 2], [style, width]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(column * size, row * size, columns * size, rows * size);
    }
  };
}

// Numbers as a picture, one pixel each; the style sheet makes them large.
function picture(values, w, h, colours, attributes) {
  const canvas = el("canvas", { width: w, height: h, role: "img", ...attributes });
  paint(canvas, values, w, h, colours);
  return canvas;
}
function paint(canvas, values, w, h, colours) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  for (let p = 0; p < w * h; p++) {
    const i = 3 * Math.max(0, Math.min(255, Math.round(255 * colours.t(values[p]))));
    image.data.set([colours.map[i], colours.map[i + 1], colours.map[i + 2], 255], 4 * p);
  }
  context.putImageData(image, 0, 0);
}

function colourBar(colours, caption) {
  const stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map((t) => css(colours.map, t * (colours.map === SIGNED ? 1 : 1)));
  return el("div", { class: "bar" },
    el("span", { class: "bar-end", text: num(colours.low, 3) }),
    el("span", { class: "bar-fill", style: `background:linear-gradient(to right,${stops.join(",")})`, role: "img",
      "aria-label": `colours from ${num(colours.low, 3)} to ${num(colours.high, 3)}` }),
    el("span", { class: "bar-end", text: num(colours.high, 3) }),
    caption && el("span", { class: "bar-caption", text: caption }));
}

// A picture with room for marks: `size` screen pixels a pixel.
function plate(values, w, h, colours, attributes) {
  const size = Math.max(1, Math.floor(448 / Math.max(w, h)));
  const canvas = el("canvas", { width: w * size, height: h * size, role: "img", ...attributes });
  const small = picture(values, w, h, colours);
  canvas.clear = (other) => {
    if (other) paint(small, other.values, w, h, other.colours);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, w * size, h * size);
  };
  canvas.box = outline(canvas, size);
  canvas.dot = (row, column, style) => {
    const context = canvas.getContext("2d");
    context.fillStyle = style;
    const s = Math.max(2, size * 0.4);
    context.fillRect((column + 0.5) * size - s / 2, (row + 0.5) * size - s / 2, s, s);
  };
  canvas.clear();
  return canvas;
}
const MARK = "#00e5ff", OTHER = "#ffd400";

// A map (see overlay) as large as the image: bilinear between the centres of its pixels.
function stretch({ values, h, w, rows: high, columns: wide }, H, W) {
  const axis = (n, most, N) => Array.from({ length: N }, (_, i) => {
    const at = Math.min(n - 1, Math.max(0, ((i + 0.5) * most) / N - 0.5));
    const low = Math.min(Math.floor(at), n - 1);
    return [low, Math.min(low + 1, n - 1), at - low];
  });
  const rows = axis(h, high, H), columns = axis(w, wide, W);
  const out = new Float32Array(H * W);
  rows.forEach(([r0, r1, tr], i) => columns.forEach(([c0, c1, tc], j) => {
    const top = values[r0 * w + c0] * (1 - tc) + values[r0 * w + c1] * tc;
    const bottom = values[r1 * w + c0] * (1 - tc) + values[r1 * w + c1] * tc;
    out[i * W + j] = top * (1 - tr) + bottom * tr;
  }));
  return out;
}
