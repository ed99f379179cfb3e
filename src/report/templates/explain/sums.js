// The three sums of a convolution, term by term, and the lines of the shader that do them.

const MODES = {
  forward: { name: "One output pixel", page: "forward", result: "y" },
  input: { name: "Input gradient", page: "grad_input", result: "dx" },
  weight: { name: "One weight's gradient", page: "grad_weight", result: "dw" },
};

// The numbers of a stepped convolution, decoded.
function numbersOf(t) {
  if (!t.numbers) {
    Object.defineProperty(t, "numbers", { value: {
      x: floats(t.x), w: floats(t.weights), bias: floats(t.bias), y: floats(t.y), dy: floats(t.dy), xPlanes: floats(t.x_planes), dyPlanes: floats(t.dy_planes), columns: floats(t.columns), dx: floats(t.dx), dw: floats(t.dw),
    } });
  }
  return t.numbers;
}

// Of a layer too large for the page there is a cut-out. The numbers of one channel in an area, and where a pixel stands among them.
const areaSize = (area) => area.size[0] * area.size[1];
const inArea = (area, row, column) => (row - area.start[0]) * area.size[1] + column - area.start[1];
const isWhole = (area, [, h, w]) => area.size[0] === h && area.size[1] === w;
// The whole of the input channel, or of dy's output channel, at a place of the lists; null where there is none.
function planeOf(t, name, place) {
  const n = numbersOf(t), [area, [, h, w], channel] = name === "x" ? [t.x_area, t.x_shape, t.inputs[place]] : [t.dy_area, t.y_shape, t.outputs[place]];
  const [from, at] = isWhole(area, [0, h, w]) ? [n[name], channel] : [n[`${name}Planes`], place];
  return from && from.subarray(at * h * w, (at + 1) * h * w);
}
const hasPlanes = (t) => planeOf(t, "x", 0) !== null && planeOf(t, "dy", 0) !== null;

// What happens, line by line, in the order of shaders/conv2d.wgsl. Each event has the mark of its line; a "term" has its factors
// a and b, their product and the sum so far, all rounded to f32 after each operation. Gives the events and the executor's value.
function events(t, mode, at) {
  const n = numbersOf(t), [C, H, W] = t.x_shape, [O, OH, OW] = t.y_shape, [kh, kw] = t.kernel;
  const cg = C / t.groups, og = O / t.groups;
  const source = (axis, o, k, size) => {
    const p = o * t.stride[axis] + k * t.dilation[axis] - t.padding[axis];
    return p >= 0 && p < size ? p : -1;
  };
  const target = (axis, p, k, size) => {
    const v = p + t.padding[axis] - k * t.dilation[axis];
    return v < 0 || v % t.stride[axis] !== 0 || v / t.stride[axis] >= size ? -1 : v / t.stride[axis];
  };
  const out = [], page = MODES[mode].page;
  const say = (mark, more) => out.push({ mark: `${page}.${mark}`, ...more });
  let sum = 0, executor;
  const term = (a, b, more) => {
    const product = f32(a * b);
    sum = f32(sum + product);
    say("sum", { kind: "term", a, b, product, sum, ...more });
  };
  if (mode === "forward") {
    const { place, i, j } = at, o = t.outputs[place], first = Math.floor(o / og) * cg;
    say("index", { text: `This invocation computes output channel o = ${o}, row i = ${i}, column j = ${j}.`, sum });
    if (n.bias) { sum = n.bias[place]; say("bias", { text: `The sum begins with the bias b[${o}] = ${num(sum, 6)}.`, sum }); }
    for (let k = 0; k < kh; k++) {
      const row = source(0, i, k, H);
      say("row", { text: row < 0 ? `Row k = ${k} of the kernel lies outside of the image: it adds nothing.` : `Row k = ${k} of the kernel reads row ${row} of x.`, sum, k });
      if (row < 0) continue;
      for (let l = 0; l < kw; l++) {
        const column = source(1, j, l, W);
        if (column < 0) { say("column", { text: `Column l = ${l} of the kernel lies outside of the image: it adds nothing.`, sum, k, l }); continue; }
        for (let c = 0; c < cg; c++)
          term(n.w[((place * cg + c) * kh + k) * kw + l], n.x[(first + c) * areaSize(t.x_area) + inArea(t.x_area, row, column)], { k, l, channel: c, row, column,
            text: `w[o ${o}, c ${c}, k ${k}, l ${l}] times x[channel ${first + c}, row ${row}, column ${column}]` });
      }
    }
    executor = n.y[place * areaSize(t.y_area) + inArea(t.y_area, i, j)];
    say("store", { text: `The sum is y[channel ${o}, row ${i}, column ${j}].`, sum, end: true });
  } else if (mode === "input") {
    const { place, i: row, j: column } = at, channel = t.inputs[place], first = Math.floor(channel / cg) * og, inside = channel % cg;
    say("index", { text: `This invocation computes dx of channel ${channel}, row ${row}, column ${column}.`, sum });
    say("zero", { text: "The sum begins with 0: the bias does not depend on x.", sum });
    for (let k = 0; k < kh; k++) {
      const i = target(0, row, k, OH);
      say("row", { text: i < 0 ? `No output reads this row through row k = ${k} of the kernel.` : `Output row i = ${i} read this pixel through row k = ${k} of the kernel.`, sum, k });
      if (i < 0) continue;
      for (let l = 0; l < kw; l++) {
        const j = target(1, column, l, OW);
        if (j < 0) { say("column", { text: `No output reads this column through column l = ${l} of the kernel.`, sum, k, l }); continue; }
        for (let o = 0; o < og; o++) {
          const w = n.columns ? n.columns[((place * og + o) * kh + k) * kw + l] : n.w[(((first + o) * cg + inside) * kh + k) * kw + l];
          term(w, n.dy[(first + o) * areaSize(t.dy_area) + inArea(t.dy_area, i, j)], { k, l, channel: o, row: i, column: j,
            text: `w[o ${first + o}, c ${inside}, k ${k}, l ${l}] times dy[channel ${first + o}, row ${i}, column ${j}]` });
        }
      }
    }
    executor = n.dx[place * areaSize(t.dx_area) + inArea(t.dx_area, row, column)];
    say("store", { text: `The sum is dx[channel ${channel}, row ${row}, column ${column}].`, sum, end: true });
  } else {
    const { place, input, k, l } = at, o = t.outputs[place], c = t.inputs[input];
    const x = planeOf(t, "x", input), dy = planeOf(t, "dy", place);
    say("index", { text: `This invocation computes dw of output channel o = ${o}, input channel ${c}, row k = ${k}, column l = ${l} of the kernel.`, sum });
    say("zero", { text: "The sum begins with 0. Every output pixel that this weight had a hand in adds one product.", sum });
    let all = 0;
    for (let i = 0; i < OH; i++) {
      const row = source(0, i, k, H);
      if (row < 0) { say("row", { text: `Output row i = ${i} met padding with this weight: nothing to add.`, sum: all, i }); continue; }
      sum = 0;
      say("part", { text: `Output row i = ${i} reads row ${row} of x; its products are added up first.`, sum: all, part: 0, i });
      for (let j = 0; j < OW; j++) {
        const column = source(1, j, l, W);
        if (column < 0) continue;
        const a = x[row * W + column], b = dy[i * OW + j], product = f32(a * b);
        sum = f32(sum + product);
        say("sum", { kind: "term", a, b, product, part: sum, sum: all, i, j, row, column,
          text: `x[channel ${c}, row ${row}, column ${column}] times dy[channel ${o}, row ${i}, column ${j}]` });
      }
      all = f32(all + sum);
      say("join", { text: `The row's ${num(sum, 5)} joins the total.`, sum: all, part: sum, i });
    }
    sum = all;
    executor = n.dw[((place * t.inputs.length + input) * kh + k) * kw + l];
    say("store", { text: `The sum is dw[o ${o}, c ${c}, k ${k}, l ${l}].`, sum, end: true });
  }
  return { events: out, sum, executor };
}

// Keywords and comments of WGSL, marked for the eye.
function code(E, page) {
  const lines = E.shader.text.split("\n"), marks = E.shader.marks;
  const [from, to] = [marks[`${page}.start`] - 1, marks[`${page}.end`]];
  const list = el("ol", { class: "code", start: from, "aria-label": `shaders/${E.shader.name}, ${page}` });
  const nodes = new Map();
  for (let n = from; n <= to; n++) {
    const line = lines[n - 1], item = el("li", { value: n });
    const pattern = /(\/\/.*$)|\b(fn|let|var|for|if|else|return|continue|const|select)\b|(\b\d[\w.]*\b)/g;
    let at = 0;
    for (const m of line.matchAll(pattern)) {
      item.append(line.slice(at, m.index), el("span", { class: m[1] ? "comment" : m[2] ? "keyword" : "number", text: m[0] }));
      at = m.index + m[0].length;
    }
    item.append(line.slice(at) || (line ? "" : "\u00a0"));
    nodes.set(n, item);
    list.append(item);
  }
  const box = el("div", { class: "code-box scroll", tabindex: "0", role: "region", "aria-label": `${E.shader.name}: the kernel in WGSL` }, list);
  box.mark = (name) => {
    nodes.forEach((item) => { item.classList.remove("now"); item.removeAttribute("aria-current"); });
    const item = nodes.get(marks[name]);
    if (!item) return;
    item.classList.add("now");
    item.setAttribute("aria-current", "step");
    const top = item.offsetTop - list.offsetTop;
    if (top < box.scrollTop + 20 || top > box.scrollTop + box.clientHeight - 40) box.scrollTop = top - box.clientHeight / 2;
  };
  return box;
}
