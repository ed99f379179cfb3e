// The strip of layers, and what is told of one.

const KINDS = {
  conv: "Each output pixel is a weighted sum over a small window of all input channels, plus a bias; the same weights at every place.",
  relu: "max(x, 0): what is negative becomes 0.",
  lrelu: "x above 0, a small slope below.", elu: "x above 0, a soft curve below.", sigmoid: "1 / (1 + exp(-x)).", tanh: "Hyperbolic tangent.",
  softmax: "Makes numbers that add up to 1.",
  pool: "The largest pixel of each window goes on; the others are forgotten.",
  avgpool: "The mean of each window goes on.", gap: "The mean of each channel over the whole image.", adaptive: "Means over as many windows as the output has pixels.",
  bn: "Each channel is shifted and scaled to the mean and spread that training gave it.",
  dropout: "Drops numbers at random while training; here it does nothing.",
  flatten: "All pixels of all channels in one row.",
  dense: "Each output is a weighted sum of all inputs, plus a bias.",
  add: "The sum of a block's result and its input: the way past the block keeps gradients large.",
  concat: "The channels of the input, and behind them the block's.",
};

// The map of a layer that is shown at place k.
function mapValues(layer, k) {
  const m = layer.maps, size = m.height * m.width, data = bytes(m);
  return Float32Array.from(data.subarray(k * size, (k + 1) * size), (b) => unbyte(b, m.low[k], m.high[k]));
}
function liveliest(m) {
  let best = 0;
  m.channels.forEach((_, k) => { if (m.high[k] - m.low[k] > m.high[best] - m.low[best]) best = k; });
  return best;
}
function thumb(layer) {
  if (!layer.maps) {
    const every = floats(layer.values), values = every.filter((_, k) => k % Math.ceil(every.length / 256) === 0), side = Math.ceil(Math.sqrt(values.length));
    const padded = new Float32Array(side * side);
    padded.set(values);
    return picture(padded, side, side, scale(layer.activations.low, layer.activations.high), { "aria-hidden": "true" });
  }
  const k = liveliest(layer.maps);
  return picture(mapValues(layer, k), layer.maps.width, layer.maps.height, scale(layer.maps.low[k], layer.maps.high[k]), { "aria-hidden": "true" });
}

function networkPart(E) {
  const first = Math.max(0, E.layers.findIndex((l) => l.stepped));
  const s = { layer: first, tab: "maps" };
  const detail = el("div", { class: "detail" });
  const buttons = E.layers.map((l, i) => el("button", { type: "button", class: `layer kind-${l.kind}`, onclick: () => open(i),
    onkeydown: (e) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: E.layers.length - 1 }[e.key];
      if (to === undefined || !buttons[to]) return;
      open(to);
      buttons[to].focus();
      e.preventDefault();
    } },
    // Blanks between them for those who listen to it.
    thumb(l), el("span", { class: "layer-name", text: l.name }), " ", el("span", { class: "layer-shape", text: by(l.output) }), " ",
    el("span", { class: "layer-small", text: l.parameters ? `${scaled(l.parameters)} params` : "no params" }), " ",
    el("span", { class: "layer-small", text: l.field ? `sees ${l.field.size[0] === l.field.size[1] ? l.field.size[0] : by(l.field.size)} px` : "sees all" })));
  const strip = el("div", { class: "strip scroll", role: "group", "aria-label": "Layers, in the order in which they run" },
    el("div", { class: "layer image-tile" }, picture(E.grey, E.image.width, E.image.height, GREY_SCALE, { "aria-hidden": "true" }),
      el("span", { class: "layer-name", text: "image" }), el("span", { class: "layer-shape", text: by(E.model.input) })), buttons);
  function open(i, keep) {
    s.layer = i;
    buttons.forEach((b, k) => { b.setAttribute("aria-pressed", String(k === i)); b.tabIndex = k === i ? 0 : -1; });
    if (!keep) {
      const b = buttons[i], left = b.offsetLeft - strip.offsetLeft;
      if (left < strip.scrollLeft || left + b.offsetWidth > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = left - strip.clientWidth / 3;
    }
    detail.replaceChildren(...layerDetail(E, i, s, walk));
  }
  // From the buttons beside a layer's name, which are made anew with it: the new one goes on where the old one was.
  function walk(i, step) {
    open(i + step);
    const [back, on] = detail.querySelectorAll(".walk button"), [same, other] = step < 0 ? [back, on] : [on, back];
    (same.disabled ? other : same).focus({ preventScroll: true });
  }
  open(first, true);
  const part = el("section", { class: "part" }, heading(E, 2, { text: "The network" }),
    el("p", { class: "words", text: `${E.model.text}: ${count(E.layers.length, "layer")}, ${count(E.model.parameters, "parameter")}, ${scaled(E.model.flops)}FLOP for one image. Each picture shows the layer's liveliest map. Choose a layer; arrow keys go on.` }),
    strip, detail);
  part.open = (i, tab) => { s.tab = tab || s.tab; open(i); };
  return part;
}

function layerDetail(E, i, s, walk) {
  const l = E.layers[i];
  const g = l.gradients;
  const panels = [];
  if (l.maps) panels.push(["maps", "Feature maps", () => mapsPanel(E, i)]);
  else panels.push(["values", "Values", () => valuesPanel(E, i)]);
  if (l.stepped) panels.push(["step", "Step through", () => stepPanel(E, i)]);
  if (l.filters) panels.push(["filters", "Filters", () => filtersPanel(E, i)]);
  if (l.winners) panels.push(["winners", "Winners", () => winnersPanel(E, i)]);
  panels.push(["numbers", "Histograms", () => numbersPanel(E, i)]);
  const [list, holder] = tabs(`About ${l.name}`, panels, s.tab, (name) => { s.tab = name; });
  const from = l.inputs.map((k) => layerName(E, k)).join(" and ");
  return [
    el("div", { class: "detail-head" },
      heading(E, 3, { text: l.name }), el("code", { text: l.text }),
      el("span", { class: "walk" },
        el("button", { type: "button", disabled: i === 0, onclick: () => walk(i, -1), "aria-label": "previous layer", text: "\u2190" }),
        el("button", { type: "button", disabled: i === E.layers.length - 1, onclick: () => walk(i, 1), "aria-label": "next layer", text: "\u2192" }))),
    el("p", { class: "words", text: `${KINDS[l.kind] || ""} Reads ${from}.` }),
    facts([
      ["output", by(l.output)],
      ["parameters", grouped(l.parameters) + (l.buffers ? ` and ${grouped(l.buffers)} statistics` : "")],
      ["work", `${scaled(l.flops)}FLOP`],
      ["one output sees", l.field ? `${by(l.field.size)} pixels, neighbours ${by(l.field.stride)} apart, the first from (${l.field.start.join(", ").replace(/-/g, "\u2212")})` : "the whole image"],
      l.silent && ["silent here", `${grouped(l.silent.count)} of ${count(l.silent.of, "unit")}${l.silent.count ? `: ${l.silent.units.slice(0, 12).join(", ")}${l.silent.count > 12 ? " ..." : ""}` : ""}`],
      ["gradient of the logit", `norm ${num(g.norm, 3)}`],
    ]),
    l.kind === "conv" && !l.stepped ? el("p", { class: "small", text: "Its sums cannot be stepped through here: the numbers of so many convolutions do not fit onto one page." }) : "",
    list, holder];
}

// The layer, and those in front and behind that belong to it: before and after normalisation and activation.
function stagesOf(E, i) {
  const belongs = (k) => ["bn", "relu", "lrelu", "elu", "sigmoid", "tanh", "add"].includes(E.layers[k].kind);
  const same = (a, b) => E.layers[a].output.join() === E.layers[b].output.join();
  let first = i;
  while (belongs(first) && E.layers[first].inputs[0] !== null && same(first, E.layers[first].inputs[0])) first = E.layers[first].inputs[0];
  const out = [first];
  for (let at = first; E.readers[at].length === 1 && belongs(E.readers[at][0]) && same(at, E.readers[at][0]);) out.push((at = E.readers[at][0]));
  return out.includes(i) ? out : [i];
}
