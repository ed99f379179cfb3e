// A convolution, stepped: one sum after the other beside the shader, with pictures of what it meets.

function stepPanel(E, index) {
  const t = E.layers[index].stepped, n = numbersOf(t), [C, H, W] = t.x_shape, [O, OH, OW] = t.y_shape, [kh, kw] = t.kernel;
  const cg = C / t.groups, og = O / t.groups;
  // Gradients have both signs, and 0 in the middle of the colours.
  const signed = (low, high) => { const most = Math.max(-low, high) || 1; return { map: SIGNED, low: -most, high: most, t: (q) => (q + most) / (2 * most) }; };
  const own = (v) => signed(...range(v));
  // The image itself is grey, whatever normalising made of it.
  const ofX = (v) => { const [low, high] = range(v); return E.layers[index].inputs[0] === null ? { map: GREY, low, high, t: (q) => (q - low) / (high - low || 1) } : scale(low, high); };
  const s = { mode: "forward", place: 0, input: 0, k: Math.floor(kh / 2), l: Math.floor(kw / 2), at: 0, channel: 0 };
  const middle = (area) => area.start.map((v, k) => v + Math.floor(area.size[k] / 2));
  const clamp = (v, area, k) => Math.max(area.start[k], Math.min(area.start[k] + area.size[k] - 1, v));
  [s.i, s.j] = middle(t.y_area);
  // Begin where something happens: at the channel and pixel of y whose gradient is largest.
  {
    let most = 0;
    const [top, left] = t.y_area.start;
    t.outputs.forEach((o, p) => {
      for (let i = top; i < top + t.y_area.size[0]; i++) for (let j = left; j < left + t.y_area.size[1]; j++) {
        if (i !== clamp(i, t.dy_area, 0) || j !== clamp(j, t.dy_area, 1)) continue;
        const v = Math.abs(n.dy[o * areaSize(t.dy_area) + inArea(t.dy_area, i, j)]);
        if (v > most) { most = v; [s.place, s.i, s.j] = [p, i, j]; }
      }
    });
  }
  [s.row, s.column] = [clamp(s.i * t.stride[0], t.dx_area, 0), clamp(s.j * t.stride[1], t.dx_area, 1)];
  let run = null, timer = null;
  const body = el("div", {}), stop = () => { clearInterval(timer); timer = null; };
  const modes = Object.entries(MODES).filter(([m]) => m !== "weight" || hasPlanes(t)).map(([m, v]) => [m, v.name]);
  const outer = el("div", { class: "stepped" },
    el("p", { class: "words", text: `The plain kernel of this layer, ${E.shader.name}, one line after the other; the executor may have used a faster one. Gradients are those of the logit of ${className(E, E.target)}.` }),
    cutOut(),
    choice("What is computed", modes, s.mode, (m) => { stop(); s.mode = m; s.at = 0; s.channel = 0; build(); }), body);

  // What is said where the page does not have all of the layer.
  function cutOut() {
    const said = [], where = ({ start, size }) => `rows ${start[0]} to ${start[0] + size[0] - 1}, columns ${start[1]} to ${start[1] + size[1] - 1}`;
    if (!isWhole(t.y_area, t.y_shape)) said.push(`of y ${where(t.y_area)} of ${by([OH, OW])}`);
    if (!isWhole(t.dx_area, t.x_shape)) said.push(`of dx ${where(t.dx_area)} of ${by([H, W])}`);
    const words = said.length ? `This layer has more numbers than the page has room for. Here is what surrounds the place that speaks most, to the last bit: ${said.join("; ")}.` : "";
    const weights = hasPlanes(t) ? "" : ` A weight's gradient adds up a product for each of ${grouped(OH * OW)} output pixels, which do not fit.`;
    return words || weights ? el("p", { class: "small", text: words + weights }) : null;
  }

  function build() {
    const m = s.mode, column = (list, name, value, change) => dropdown(name, list.map((c, p) => [p, String(c)]), value, change);
    const again = () => { stop(); s.at = 0; run = null; show(true); };
    const fields = [];
    if (m !== "input") fields.push(column(t.outputs, "output channel", s.place, (v) => { s.place = v; again(); }));
    if (m !== "forward") fields.push(column(t.inputs, "input channel", s.input, (v) => { s.input = v; again(); }));
    const set = {};
    const field = (key, text, most) => fields.push((set[key] = numberField(text, s[key], most, (v) => { s[key] = v; again(); })));
    const span = (area, k) => [area.start[k], area.start[k] + area.size[k] - 1];
    if (m === "forward") { field("i", "row", span(t.y_area, 0)); field("j", "column", span(t.y_area, 1)); }
    if (m === "input") { field("row", "row", span(t.dx_area, 0)); field("column", "column", span(t.dx_area, 1)); }
    if (m === "weight") { field("k", "kernel row", [0, kh - 1]); field("l", "kernel column", [0, kw - 1]); }
    const planes = el("div", { class: "planes" }), left = el("div", { class: "work" }), readout = el("div", { class: "readout" });
    const shader = code(E, MODES[m].page);
    const slider = el("input", { type: "range", min: 0, value: 0, "aria-label": "step", oninput: () => { stop(); s.at = Number(slider.value); show(); } });
    const counter = el("span", { class: "counter" });
    const play = el("button", { type: "button", text: "\u25b6 play", onclick: () => {
      if (timer) { stop(); show(); return; }
      if (s.at >= run.events.length - 1) s.at = 0;
      timer = setInterval(() => {
        if (!outer.isConnected || s.at >= run.events.length - 1) { stop(); show(); return; }
        s.at += Math.max(1, Math.round(run.events.length / 400));
        s.at = Math.min(s.at, run.events.length - 1);
        show();
      }, 120);
      show();
    } });
    const jump = (text, label, to) => el("button", { type: "button", text, "aria-label": label, onclick: () => { stop(); s.at = Math.max(0, Math.min(run.events.length - 1, to())); show(); } });
    const controls = el("div", { class: "controls", role: "group", "aria-label": "Steps" },
      jump("\u21e4", "first step", () => 0), jump("\u2190", "one step back", () => s.at - 1), play,
      jump("\u2192", "one step on", () => s.at + 1), jump("\u21e5", "last step", () => run.events.length - 1), slider, counter);
    body.replaceChildren(el("div", { class: "fields" }, fields), el("div", { class: "bench" }, planes, controls, readout, shader, left));

    const where = () => ({ forward: { place: s.place, i: s.i, j: s.j }, input: { place: s.input, i: s.row, j: s.column }, weight: { place: s.place, input: s.input, k: s.k, l: s.l } }[m]);
    // What stays while another pixel or weight is chosen: an element that is replaced loses the keyboard's focus.
    let draw = null, kept = null;
    function show(fresh) {
      if (!run || fresh) {
        run = events(t, m, where());
        slider.max = run.events.length - 1;
        for (const key of Object.keys(set)) set[key].set(s[key]);
        draw = (m === "weight" ? weightViews : windowViews)(planes, left, (row, col) => {
          if (m === "forward") [s.i, s.j] = [row, col]; else [s.row, s.column] = [row, col];
          again();
        });
      }
      const now = run.events[s.at];
      if (now.channel !== undefined) s.channel = now.channel;
      slider.value = s.at;
      const terms = run.events.slice(0, s.at + 1).filter((e) => e.kind === "term").length;
      counter.textContent = `step ${s.at + 1} of ${grouped(run.events.length)}, ${grouped(terms)} products`;
      play.textContent = timer ? "\u275a\u275a pause" : "\u25b6 play";
      shader.mark(now.mark);
      readout.setAttribute("aria-live", timer ? "off" : "polite");
      readout.replaceChildren(...[el("p", { class: "now-text", text: now.text }),
        now.kind === "term" ? el("p", { class: "product" }, el("b", { text: num(now.a, 6) }), " \u00d7 ", el("b", { text: num(now.b, 6) }), " = ", el("b", { text: num(now.product, 6) })) : null,
        el("p", { class: "sum" }, now.part !== undefined ? [el("span", { text: "this row " }), el("b", { text: num(now.part, 7) }), el("span", { text: "   total " })] : el("span", { text: "sum so far " }), el("b", { text: num(now.sum, 7) })),
        now.end ? el("p", { class: "verdict" }, `The executor's value is ${num(run.executor, 7)}: ${Math.abs(run.executor - run.sum) === 0 ? "the same bits." :
          `${num(Math.abs(run.executor - run.sum), 2)} apart, because it adds the same products in another order.`}`) : null].filter(Boolean));
      draw(now, s.at);
    }
    // Window by window: forward, and the input gradient, which is the same with other pixels.
    function windowViews(planes, left, pick) {
      const forward = m === "forward", channels = forward ? cg : og;
      const first = forward ? Math.floor(t.outputs[s.place] / og) * cg : Math.floor(t.inputs[s.input] / cg) * og;
      const [to, of] = forward ? [t.y_area, t.x_area] : [t.dx_area, t.dy_area], [dh, dw] = to.size, [sh, sw] = of.size;
      const result = forward ? n.y.subarray(s.place * dh * dw, (s.place + 1) * dh * dw) : n.dx.subarray(s.input * dh * dw, (s.input + 1) * dh * dw);
      const from = forward ? n.x : n.dy, plane = (c) => from.subarray((first + c) * sh * sw, (first + c + 1) * sh * sw);
      const [row, column] = forward ? [s.i, s.j] : [s.row, s.column];
      const cell = (c, k, l) => {
        const e = run.grid.get((c * kh + k) * kw + l);
        return e === undefined ? null : run.events[e];
      };
      run.grid = new Map();
      run.events.forEach((e, at) => { if (e.kind === "term") { e.at = at; run.grid.set((e.channel * kh + e.k) * kw + e.l, at); } });

      const shown = forward ? s.place : s.input, title = forward ? "y" : "dx", other = forward ? "x" : "dy";
      if (!kept || kept.shown !== shown) {
        const chosen = plate(result, dw, dh, forward ? scale(...range(result)) : own(result)), source = el("figure", {});
        pickable(chosen, dw, dh, forward ? `Output channel ${t.outputs[s.place]}` : `dx of input channel ${t.inputs[s.input]}`, (r, c) => pick(r + to.start[0], c + to.start[1]));
        planes.replaceChildren(el("figure", {}, el("figcaption", { text: `${other}, ${forward ? "input" : "output"} channel` }), source), el("span", { class: "arrow", "aria-hidden": "true", text: "\u2192" }),
          el("figure", {}, el("figcaption", { text: `${title}, channel ${forward ? t.outputs[s.place] : t.inputs[s.input]}: choose a pixel` }), chosen));
        kept = { shown, chosen, source };
      }
      const { chosen, source } = kept;
      chosen.clear();
      chosen.place(row - to.start[0], column - to.start[1]);
      chosen.box(row - to.start[0], column - to.start[1], 1, 1, MARK, 3);
      const tiles = el("div", { class: "windows" });
      const grids = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Window, weights and products" });
      const shades = forward ? ofX(from) : own(from);
      left.replaceChildren(heading(E, 4, { text: channels === 1 ? "The window, and what it adds" : `The window on each of ${channels} ${forward ? "input" : "output"} channels, and what each adds` }), tiles, grids);
      // A tile for each channel: what the window sees there, and what it has added.
      const most = 64, list = Array.from({ length: Math.min(channels, most) }, (_, c) => c);
      const buttons = list.map((c) => {
        const seen = new Float32Array(kh * kw);
        for (let k = 0; k < kh; k++) for (let l = 0; l < kw; l++) seen[k * kw + l] = (cell(c, k, l) || { b: 0 }).b;
        const value = el("span", {});
        const b = el("button", { type: "button", class: "map window", onclick: () => { stop(); s.channel = c; draw(run.events[s.at], s.at, true); } }, picture(seen, kw, kh, shades, { "aria-hidden": "true" }), value);
        b.value_ = value;
        return b;
      });
      tiles.append(...buttons, channels > most ? el("p", { class: "small", text: `and ${channels - most} more, which the steps go through too` }) : "");
      let shownChannel = null;
      return (now, at) => {
        const c = s.channel;
        if (shownChannel !== c) {
          const map = plate(plane(c), sw, sh, (forward ? ofX : own)(plane(c)));
          map.setAttribute("aria-label", `${other}, channel ${first + c}`);
          if (forward) map.box(row * t.stride[0] - t.padding[0] - of.start[0], column * t.stride[1] - t.padding[1] - of.start[1], (kh - 1) * t.dilation[0] + 1, (kw - 1) * t.dilation[1] + 1);
          else for (let k = 0; k < kh; k++) for (let l = 0; l < kw; l++) { const e = cell(c, k, l); if (e) map.box(e.row - of.start[0], e.column - of.start[1], 1, 1, MARK, 2); }
          source.replaceChildren(map, el("span", { class: "small", text: `channel ${first + c}` }));
          shownChannel = c;
        }
        const sums = new Float64Array(channels);
        for (let q = 0; q <= at; q++) { const e = run.events[q]; if (e.kind === "term") sums[e.channel] += e.product; }
        buttons.forEach((b, k) => {
          b.setAttribute("aria-pressed", String(k === c));
          b.value_.textContent = num(sums[k], 2);
          b.setAttribute("aria-label", `channel ${first + k}, adds ${num(sums[k], 2)} so far`);
        });
        const grid = (caption, of) => el("table", { class: "grid" }, el("caption", { text: caption }), el("tbody", {}, Array.from({ length: kh }, (_, k) => el("tr", {}, Array.from({ length: kw }, (_, l) => {
          const e = cell(c, k, l), done = e && e.at <= at, current = now.kind === "term" && now.k === k && now.l === l && now.channel === c;
          return el("td", { class: `${current ? "now" : done ? "done" : ""}${e ? "" : " none"}`, title: e ? of(e) : "outside", text: e ? num(of(e), Math.abs(of(e)) < 0.01 ? 2 : 3) : "\u2013" });
        })))));
        grids.replaceChildren(el("div", { class: "grids" }, grid(`${other}, channel ${first + c}`, (e) => e.b), el("span", { class: "sign", text: "\u00d7" }), grid("weights", (e) => e.a), el("span", { class: "sign", text: "=" }), grid("products", (e) => e.product)));
      };
    }
    // x, dy and their products over all output pixels.
    function weightViews(planes, left) {
      const o = t.outputs[s.place], c = t.inputs[s.input];
      if (Math.floor(o / og) !== Math.floor(c / cg)) {
        planes.replaceChildren(el("p", { text: "These two channels are of different groups: no weight joins them." }));
        left.replaceChildren();
        kept = null;
        return () => {};
      }
      const x = planeOf(t, "x", s.input), dy = planeOf(t, "dy", s.place), products = new Float32Array(OH * OW);
      run.events.forEach((e) => { if (e.kind === "term") products[e.i * OW + e.j] = e.product; });
      const maps = [[x, W, H, `x, input channel ${c}`, ofX], [dy, OW, OH, `dy, output channel ${o}`, own], [products, OW, OH, "products: they add up to dw", own]].map(([v, w, h, text, colours]) => {
        const map = plate(v, w, h, colours(v), { "aria-label": text });
        return { map, figure: el("figure", {}, el("figcaption", { text }), map) };
      });
      planes.replaceChildren(maps[0].figure, el("span", { class: "arrow", "aria-hidden": "true", text: "\u00d7" }), maps[1].figure, el("span", { class: "arrow", "aria-hidden": "true", text: "=" }), maps[2].figure);
      const shown = `${s.place} ${s.input}`;
      if (!kept || kept.shown !== shown) {
        const rows = el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Products of this row" });
        const weights = Array.from({ length: kh * kw }, (_, tap) => {
          const [k, l] = [Math.floor(tap / kw), tap % kw], dw = num(n.dw[(s.place * t.inputs.length + s.input) * kh * kw + tap], 3);
          return el("button", { type: "button", "aria-label": `weight row ${k}, column ${l}, gradient ${dw}`, text: dw, onclick: () => { [s.k, s.l] = [k, l]; again(); } });
        });
        const kernel = el("table", { class: "grid" }, el("caption", { text: "dw of this kernel; choose a weight" }), el("tbody", {}, Array.from({ length: kh }, (_, k) =>
          el("tr", {}, weights.slice(k * kw, (k + 1) * kw).map((b) => el("td", {}, b))))));
        left.replaceChildren(el("div", {}, kernel), heading(E, 4, { text: "Products of this row of outputs" }), rows);
        kept = { shown, weights, rows };
      }
      const { weights, rows } = kept;
      weights.forEach((b, tap) => {
        const now = tap === s.k * kw + s.l;
        b.parentElement.classList.toggle("now", now);
        b.setAttribute("aria-pressed", String(now));
      });
      const [offR, offC] = [s.k * t.dilation[0] - t.padding[0], s.l * t.dilation[1] - t.padding[1]];
      let shownRow = null, spans = new Map();
      return (now) => {
        maps.forEach(({ map }) => map.clear());
        maps[0].map.box(offR, offC, (OH - 1) * t.stride[0] + 1, (OW - 1) * t.stride[1] + 1, OTHER, 2);
        if (now.kind === "term") {
          maps[0].map.box(now.row, now.column, 1, 1);
          maps[1].map.box(now.i, now.j, 1, 1);
          maps[2].map.box(now.i, now.j, 1, 1);
        }
        if (now.i === undefined) { rows.replaceChildren(el("p", { class: "small", text: "Each output pixel was made with this one weight. The frame on x is what the weight met." })); shownRow = null; return; }
        if (shownRow !== now.i) {
          shownRow = now.i;
          spans = new Map();
          const list = run.events.filter((e) => e.kind === "term" && e.i === now.i);
          rows.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ["j", "x", "dy", "x \u00d7 dy", "row's sum"].map((h) => el("th", { scope: "col", text: h })))),
            el("tbody", {}, list.map((e) => { const tr = el("tr", {}, [e.j, num(e.a), num(e.b), num(e.product), num(e.part)].map((v) => el("td", { text: v }))); spans.set(e.j, tr); return tr; }))));
        }
        spans.forEach((tr, j) => tr.classList.toggle("now", now.kind === "term" && j === now.j));
        const tr = spans.get(now.j);
        if (tr && now.kind === "term" && (tr.offsetTop < rows.scrollTop + 30 || tr.offsetTop > rows.scrollTop + rows.clientHeight - 40)) rows.scrollTop = tr.offsetTop - rows.clientHeight / 2;
      };
    }
    run = null;
    show(true);
  }
  build();
  return outer;
}
