// The panels of a layer: feature maps, values, filters, histograms, winners.

function mapsPanel(E, i) {
  const s = { layer: i, shared: false, channel: null };
  const stages = stagesOf(E, i);
  const grid = el("div", { class: "maps" }), large = el("div", { class: "two narrow" }), legend = el("div", {}), note = el("p", { class: "small" });
  function colours(l, k) {
    return s.shared ? scale(range(l.maps.low)[0], largest(l.maps.high)) : scale(l.maps.low[k], l.maps.high[k]);
  }
  function draw() {
    const l = E.layers[s.layer], m = l.maps;
    if (s.channel === null || !m.channels.includes(s.channel)) s.channel = m.channels[liveliest(m)];
    note.textContent = `${m.channels.length} of ${count(l.output[0], "channel")} of ${l.name}` +
      (m.shrunk > 1 ? `, shrunk ${m.shrunk} times` : "") + ". Numbers here are rounded to 256 steps.";
    legend.replaceChildren(...(s.shared ? [colourBar(colours(l, 0))] : []));
    grid.replaceChildren(...m.channels.map((c, k) => {
      const silent = m.low[k] === 0 && m.high[k] === 0;
      return el("button", { type: "button", class: "map", "aria-pressed": String(c === s.channel),
        "aria-label": `channel ${c}${silent ? " silent" : ""}, from ${num(m.low[k], 3)} to ${num(m.high[k], 3)}`,
        onclick: (e) => {
          s.channel = c;
          grid.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === e.currentTarget)));
          enlarge();
        } },
        picture(mapValues(l, k), m.width, m.height, colours(l, k), { "aria-hidden": "true" }), el("span", { text: silent ? `${c} silent` : c }));
    }));
    enlarge();
  }
  function enlarge() {
    const l = E.layers[s.layer], m = l.maps, k = m.channels.indexOf(s.channel);
    const values = mapValues(l, k), col = colours(l, k);
    const map = plate(values, m.width, m.height, col);
    const image = overlayCanvas(E, { "aria-label": "What the chosen pixel sees" });
    const words = el("p", { class: "where", "aria-live": "polite" });
    const pick = (row, column) => {
      map.clear();
      map.box(row, column, 1, 1, MARK, 2);
      image.show(null);
      const value = num(values[row * m.width + column], 4);
      if (l.field) {
        const top = l.field.start[0] + row * m.shrunk * l.field.stride[0], left = l.field.start[1] + column * m.shrunk * l.field.stride[1];
        image.box(top, left, l.field.size[0] + (m.shrunk - 1) * l.field.stride[0], l.field.size[1] + (m.shrunk - 1) * l.field.stride[1]);
      }
      words.textContent = `Channel ${s.channel}, row ${row}, column ${column}: ${value}. ` +
        (l.field ? `It sees ${by(l.field.size)} pixels of the image, in the frame${l.field.start.some((v) => v < 0) ? " (what lies outside is padding)" : ""}.` : "It sees the whole image.");
    };
    pickable(map, m.width, m.height, `Channel ${s.channel} of ${l.name}`, pick);
    const [row, column] = peak({ values, w: m.width });
    map.place(row, column);
    large.replaceChildren(el("figure", {}, map, colourBar(col)), el("figure", {}, image, words));
    pick(row, column);
  }
  draw();
  return el("div", {},
    el("div", { class: "fields" },
      stages.length > 1 && el("span", { class: "field" }, el("span", { class: "label", text: "shown" }),
        choice("Before or after the activation", stages.map((k, n) => [k, `${n === 0 ? "before: " : n === stages.length - 1 ? "after: " : ""}${E.layers[k].name}`]), i, (v) => { s.layer = v; draw(); })),
      el("span", { class: "field" }, el("span", { class: "label", text: "colours" }),
        choice("Range of the colours", [[false, "each map's own"], [true, "one for all"]], false, (v) => { s.shared = v; draw(); }))),
    large, note, legend, grid);
}

function valuesPanel(E, i) {
  const l = E.layers[i], values = floats(l.values);
  if (values.length <= 16) {
    const names = values.length === E.model.classes.length && i === E.layers.length - 1 ? E.model.classes : null;
    return table(`Outputs of ${l.name}`, ["unit", "value"], Array.from(values, (v, k) => [names ? names[k] : String(k), num(v, 6)]));
  }
  const columns = Math.min(32, Math.ceil(Math.sqrt(values.length) * 1.5)), rows = Math.ceil(values.length / columns);
  const padded = new Float32Array(columns * rows);
  padded.set(values);
  const colours = scale(l.activations.low, l.activations.high);
  const map = plate(padded, columns, rows, colours);
  const words = el("p", { class: "where", "aria-live": "polite" });
  pickable(map, columns, rows, `Outputs of ${l.name}`, (row, column) => {
    map.clear();
    map.box(row, column, 1, 1, MARK, 2);
    const unit = row * columns + column;
    words.textContent = unit < values.length ? `Unit ${unit}: ${num(values[unit], 6)}` : "No unit here.";
  });
  return el("div", {}, el("p", { class: "small", text: `${values.length} of ${count(l.output[0], "number")}, row by row.` }), el("figure", { class: "medium" }, map, colourBar(colours)), words);
}

function filtersPanel(E, i) {
  const l = E.layers[i], f = l.filters, [kh, kw] = f.kernel, data = bytes(f.weights), taps = kh * kw;
  const colours = scale(f.weights.low, f.weights.high);
  const columns = Math.min(f.inputs.length, 16), rows = Math.ceil(f.inputs.length / columns), gap = f.inputs.length > 1 ? 1 : 0;
  const tile = (o, n) => {
    const [w, h] = [columns * (kw + gap) - gap, rows * (kh + gap) - gap];
    const canvas = el("canvas", { width: w, height: h, role: "img", "aria-label": `kernels of output channel ${o}` });
    const context = canvas.getContext("2d"), image = context.createImageData(w, h);
    f.inputs.forEach((_, c) => {
      const [top, left] = [Math.floor(c / columns) * (kh + gap), (c % columns) * (kw + gap)];
      for (let t = 0; t < taps; t++) {
        const at = 3 * data[(n * f.inputs.length + c) * taps + t];
        image.data.set([colours.map[at], colours.map[at + 1], colours.map[at + 2], 255], 4 * ((top + Math.floor(t / kw)) * w + left + (t % kw)));
      }
    });
    context.putImageData(image, 0, 0);
    return el("figure", { class: "filter" }, canvas, el("figcaption", { text: o }));
  };
  const group = l.stepped ? l.stepped.x_shape[0] / l.stepped.groups : null;
  return el("div", {},
    el("p", { class: "words", text: `The kernels of ${f.outputs.length} of ${count(l.output[0], "output channel")}` +
      (f.inputs.length > 1 || (group && group > 1) ? `, each with ${f.inputs.length}${group ? ` of ${group}` : ""} input channels, side by side` : "") + `; ${by(f.kernel)} weights each. Blue is negative, orange positive.` }),
    colourBar(colours), el("div", { class: `filters${f.inputs.length > 1 ? " wide" : ""}`, tabindex: "0", role: "region", "aria-label": "Kernels" }, f.outputs.map(tile)));
}

function histogram(h, title) {
  const W = 320, H = 120, most = Math.max(1, largest(h.bins)), n = h.bins.length || 1;
  const words = `${count(h.count, "number")}, ${h.zeros ? percent(h.zeros / h.count) : "none"} of them 0, from ${num(h.low, 3)} to ${num(h.high, 3)}, mean ${num(h.mean, 3)}, standard deviation ${num(h.std, 3)}`;
  const plot = svg("svg", { viewBox: `0 0 ${W} ${H + 22}`, role: "img", "aria-label": `${title}: ${words}`, class: "histogram" });
  h.bins.forEach((b, k) => {
    const height = b ? Math.max(1.5, (H - 4) * (Math.log1p(b) / Math.log1p(most))) : 0;
    plot.append(svg("rect", { x: (k * W) / n + 0.5, y: H - height, width: W / n - 1, height, class: "column" }));
  });
  plot.append(svg("line", { x1: 0, x2: W, y1: H, y2: H, class: "axis" }));
  if (h.low < 0 && h.high > 0) {
    const x = (W * -h.low) / (h.high - h.low);
    plot.append(svg("line", { x1: x, x2: x, y1: 0, y2: H + 3, class: "axis" }));
  }
  const text = (x, anchor, t) => { const e = svg("text", { x, y: H + 16, "text-anchor": anchor }); e.textContent = t; return e; };
  plot.append(text(0, "start", num(h.low, 3)), text(W, "end", num(h.high, 3)));
  return el("figure", { class: "plot" }, el("figcaption", { text: title }), h.bins.length ? plot : el("p", { text: "All of them are 0." }), el("p", { class: "small", text: words }));
}

function numbersPanel(E, i) {
  const l = E.layers[i];
  return el("div", {},
    el("p", { class: "small", text: "Zeros are left out of the columns, whose heights are logarithms of counts." }),
    el("div", { class: "plots" },
      histogram(l.activations, `Output of ${l.name}`),
      histogram(l.gradients, `Gradient of the logit of ${className(E, E.target)} by it`),
      l.loss_gradients && histogram(l.loss_gradients, `Gradient of the loss (label ${className(E, E.label)}) by it`),
      l.params.map((p) => histogram(p.values, p.name))),
    l.params.length > 0 && table("Weights", ["name", "shape", "norm", "norm of the logit's gradient"],
      l.params.map((p) => [p.name, by(p.shape), num(p.values.norm, 4), p.gradients ? num(p.gradients.norm, 4) : "a statistic, not trained"])),
    l.silent && el("p", { text: l.silent.count === 0 ? "No unit is silent on this image." : `${count(l.silent.count, "unit")} of ${l.silent.of} give 0 everywhere on this image; no gradient flows through them: ${l.silent.units.join(", ")}${l.silent.count > l.silent.units.length ? ", ..." : ""}.` }));
}

function winnersPanel(E, i) {
  const l = E.layers[i], p = l.winners, [oh, ow] = [l.output[1], l.output[2]], data = bytes(p);
  const before = l.inputs[0] === null ? null : E.layers[l.inputs[0]];
  const s = { channel: p.channels[0], row: 0, column: 0 };
  const holder = el("div", { class: "two narrow" }), counts = el("div", {});
  if (!p.channels.length) return el("p", { text: "The winners of this layer would not fit onto the page." });
  function draw() {
    const k = p.channels.indexOf(s.channel), won = data.subarray(k * oh * ow, (k + 1) * oh * ow);
    const inner = before && before.maps && before.maps.shrunk === 1 ? before.maps.channels.indexOf(s.channel) : -1;
    const words = el("p", { class: "where", "aria-live": "polite" });
    const [h, w] = before ? [before.output[1], before.output[2]] : [E.image.height, E.image.width];
    const values = inner >= 0 ? mapValues(before, inner) : before ? new Float32Array(h * w) : E.grey;
    const colours = inner >= 0 ? scale(before.maps.low[inner], before.maps.high[inner]) : GREY_SCALE;
    const map = plate(values, w, h, colours);
    const place = (o) => [Math.floor(o / ow) * p.stride[0] - p.padding[0] + Math.floor(won[o] / p.kernel[1]), (o % ow) * p.stride[1] - p.padding[1] + (won[o] % p.kernel[1])];
    const pick = (row, column) => {
      const [r, c] = [Math.min(oh - 1, Math.floor((row + p.padding[0]) / p.stride[0])), Math.min(ow - 1, Math.floor((column + p.padding[1]) / p.stride[1]))];
      map.clear();
      for (let o = 0; o < oh * ow; o++) map.dot(...place(o), MARK);
      map.box(r * p.stride[0] - p.padding[0], c * p.stride[1] - p.padding[1], p.kernel[0], p.kernel[1], OTHER, 3);
      const [wr, wc] = place(r * ow + c);
      words.textContent = `Output row ${r}, column ${c}: of its window the pixel at row ${wr}, column ${wc} won` +
        (inner >= 0 ? `, about ${num(values[wr * w + wc], 3)}` : "") + ". The gradient goes back to that pixel alone.";
    };
    pickable(map, w, h, `Input of ${l.name}, channel ${s.channel}, with the winners marked`, pick);
    holder.replaceChildren(el("figure", {}, map, inner >= 0 && colourBar(colours)), el("figure", {}, words));
    const [row, column] = peak({ values, w });
    map.place(row, column);
    pick(row, column);
    const tally = new Array(p.kernel[0] * p.kernel[1]).fill(0);
    won.forEach((v) => { tally[v] += 1; });
    counts.replaceChildren(table("How often each pixel of the window won", ["row of the window", ...Array.from({ length: p.kernel[1] }, (_, c) => `column ${c}`)],
      Array.from({ length: p.kernel[0] }, (_, r) => [String(r), ...tally.slice(r * p.kernel[1], (r + 1) * p.kernel[1]).map(grouped)])));
  }
  draw();
  return el("div", {},
    el("p", { class: "words", text: `Windows of ${by(p.kernel)} pixels, ${by(p.stride)} apart. A mark stands on the pixel that won; of equal ones the first does.` }),
    el("div", { class: "fields" }, dropdown("channel", p.channels.map((c) => [c, String(c)]), s.channel, (v) => { s.channel = v; draw(); })),
    holder, counts);
}
