// Pictures: curves, feature maps, kernels. Everything is drawn on canvases with the colours of the style sheet.

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Fits a canvas to its box at the screen's resolution; gives its context in CSS pixels. */
function fit(canvas, height) {
  const width = Math.max(1, Math.floor(canvas.clientWidth || canvas.parentElement.clientWidth));
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  canvas.style.height = `${height}px`;
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return { g, width, height };
}

const nice = (most) => {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((k) => k * power).find((v) => v >= most) ?? most;
};

/**
 * Curves over steps. `series`: { colour, points: [[x, y], ...], dash, dots, faint }; dash as canvases take it, for who does not see colours.
 */
export function curves(canvas, series, { xMost, yMost, percent = false, height = 190 }) {
  const { g, width } = fit(canvas, height);
  const [left, right, top, bottom] = [48, 10, 8, 22];
  let largest = 1e-3;
  for (const s of series) for (const p of s.points) if (p[1] > largest && p[1] < Infinity) largest = p[1];
  const most = yMost ?? nice(largest * 1.02);
  const x = (v) => left + ((width - left - right) * v) / Math.max(1, xMost);
  const y = (v) => top + (height - top - bottom) * (1 - Math.min(v, most) / most);
  g.font = "12px system-ui, sans-serif";
  g.lineWidth = 1;
  g.strokeStyle = colour("--line");
  g.fillStyle = colour("--quiet");
  g.textBaseline = "middle";
  g.textAlign = "right";
  for (let i = 0; i <= 4; i++) {
    const v = (most * i) / 4;
    g.beginPath();
    g.moveTo(left, Math.round(y(v)) + 0.5);
    g.lineTo(width - right, Math.round(y(v)) + 0.5);
    g.stroke();
    g.fillText(percent ? `${Math.round(v * 100)} %` : String(Number(v.toPrecision(2))), left - 6, y(v));
  }
  g.textBaseline = "alphabetic";
  g.textAlign = "left";
  g.fillText("0", left, height - 6);
  g.textAlign = "right";
  g.fillText(`${xMost} steps`, width - right, height - 6);
  for (const s of series) {
    g.strokeStyle = s.colour;
    g.fillStyle = s.colour;
    g.globalAlpha = s.faint ? 0.28 : 1;
    g.lineWidth = s.faint ? 1 : 2;
    g.lineJoin = "round";
    g.setLineDash(s.dash ?? []);
    g.beginPath();
    // No more points than pixels, twice over.
    const stride = Math.max(1, Math.floor(s.points.length / (2 * width)));
    s.points.forEach((p, i) => {
      if (i % stride === 0 || i + 1 === s.points.length) g.lineTo(x(p[0]), y(p[1]));
    });
    g.stroke();
    g.setLineDash([]);
    if (s.dots) {
      for (const p of s.points) {
        g.beginPath();
        g.arc(x(p[0]), y(p[1]), 3, 0, 2 * Math.PI);
        g.fill();
      }
    }
    g.globalAlpha = 1;
  }
}

const channel = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** 256 colours for values from nothing to much, from one colour to another, as words of pixels. */
function ramp(from, to) {
  const [a, b] = [channel(from), channel(to)];
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const [red, green, blue] = a.map((v, c) => Math.round(v + ((b[c] - v) * i) / 255));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

/** Least and largest of some numbers, or how far they are from zero. */
function scale(values, signed) {
  let [least, most] = [Infinity, -Infinity];
  for (const v of values) {
    if (v < least) least = v;
    if (v > most) most = v;
  }
  return signed ? { least: 0, most: Math.max(Math.abs(least), Math.abs(most)) } : { least, most };
}

const stage = document.createElement("canvas");

/**
 * A sheet of maps `[count, h, w]`, each on its own scale. `signed`: two colours round zero; else from the least to the most. Returns how
 * many are shown.
 */
export function sheet(canvas, values, [count, h, w], { signed = false, cell = 56, gap = 6, limit = 128 } = {}) {
  const shown = Math.min(count, limit);
  const width = Math.max(1, Math.floor(canvas.clientWidth || canvas.parentElement.clientWidth));
  const columns = Math.max(1, Math.min(shown, Math.floor((width + gap) / (cell + gap))));
  const rows = Math.ceil(shown / columns);
  const { g } = fit(canvas, rows * (cell + gap) - gap);
  const paper = colour("--paper");
  const [low, high] = signed ? [ramp(paper, colour("--minus")), ramp(paper, colour("--plus"))] : [null, ramp(colour("--map-low"), colour("--map-high"))];
  // All maps at their own size, one below the other, in one piece; then each is drawn larger into its place.
  const image = new ImageData(w, shown * h);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < shown; i++) {
    const part = values.subarray(i * h * w, (i + 1) * h * w);
    const { least, most } = scale(part, signed);
    const factor = 255 / (most - least || 1);
    for (let k = 0; k < h * w; k++) {
      const level = Math.round((signed ? Math.abs(part[k]) : part[k] - least) * factor);
      out[i * h * w + k] = (signed && part[k] < 0 ? low : high)[level];
    }
  }
  stage.width = w;
  stage.height = shown * h;
  stage.getContext("2d").putImageData(image, 0, 0);
  g.imageSmoothingEnabled = false;
  for (let i = 0; i < shown; i++) {
    g.drawImage(stage, 0, i * h, w, h, (i % columns) * (cell + gap), Math.floor(i / columns) * (cell + gap), cell, cell);
  }
  return { shown };
}

/** Numbers of a dense layer as bars round a zero line. */
export function bars(canvas, values, { height = 72 } = {}) {
  const { g, width } = fit(canvas, height);
  let most = 1e-6;
  for (const v of values) most = Math.max(most, Math.abs(v));
  const negative = values.some((v) => v < 0);
  const zero = negative ? height / 2 : height - 1;
  const step = width / values.length;
  values.forEach((v, i) => {
    g.fillStyle = colour(v < 0 ? "--minus" : "--plus");
    const tall = (Math.abs(v) / most) * (negative ? height / 2 : height - 1);
    g.fillRect(i * step, v < 0 ? zero : zero - tall, Math.max(1, step - (step > 3 ? 1 : 0)), tall);
  });
  g.strokeStyle = colour("--line");
  g.beginPath();
  g.moveTo(0, Math.round(zero) - 0.5);
  g.lineTo(width, Math.round(zero) - 0.5);
  g.stroke();
}

/** An X-ray as it is: bytes to greys. */
export function xray(canvas, bytes, h, w) {
  canvas.width = w;
  canvas.height = h;
  const image = new ImageData(w, h);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < h * w; i++) out[i] = ((255 << 24) | (bytes[i] * 0x10101)) >>> 0;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
