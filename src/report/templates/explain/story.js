// The strongest path, several networks side by side, and what is rounded.

function pathPart(E, open) {
  if (!E.paths.length) return null;
  const s = { class: E.target }, way = el("ol", { class: "way" });
  function draw() {
    const path = E.paths.find((p) => p.class === s.class);
    const stages = path.stages.map((st) => {
      const l = E.layers[st.layer];
      return el("li", {}, heading(E, 4, {}, el("button", { type: "button", class: "link", text: l.name, onclick: () => open(st.layer, "maps") })),
        st.channels.length ? el("ul", { class: "channels" }, st.channels.map((c, k) => {
          const at = l.maps ? l.maps.channels.indexOf(c.channel) : -1;
          return el("li", { class: k === 0 ? "first" : "" },
            at >= 0 ? picture(mapValues(l, at), l.maps.width, l.maps.height, scale(l.maps.low[at], l.maps.high[at]), { "aria-label": `feature map ${c.channel}` }) : el("span", { class: "no-map", text: "not kept" }),
            el("span", { text: `channel ${c.channel}` }), el("span", { class: "track" }, el("span", { class: "fill", style: `width:${100 * c.share}%` })), el("span", { text: percent(c.share) }));
        })) : el("p", { class: "small", text: "No channel here speaks for it: the way ends." }));
    });
    const map = OVERLAYS.path.of(E, s), image = overlayCanvas(E, { "aria-label": "What the pixels give to this chain of channels" });
    image.show(map, 0.9);
    way.replaceChildren(el("li", { class: "end" }, heading(E, 4, { text: className(E, s.class) }), el("p", { text: percent(E.probabilities[s.class]) })), ...stages,
      el("li", { class: "end" }, heading(E, 4, { text: "image" }), image));
  }
  draw();
  return el("section", { class: "part" }, heading(E, 2, { text: "The strongest channels back to the image" }),
    el("p", { class: "words", text: "From the class to the channels that speak for it most (activation times gradient, as a share of all that speak for it). Each next stage asks what the first channel of the stage before owes to the layer in front of it." }),
    el("div", { class: "fields" }, dropdown("class", E.paths.map((p) => [p.class, className(E, p.class)]), s.class, (v) => { s.class = v; draw(); })), way);
}

function notesPart(E) {
  const source = (text) => el("li", { text });
  return el("section", { class: "part" }, heading(E, 2, { text: "What is rounded, and where the methods come from" }),
    el("ul", { class: "words" }, E.notes.map(source), source(`Computed by: ${E.device}.`)),
    el("ul", { class: "words" },
      source("Grad-CAM: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017, arXiv 1610.02391."),
      source("HiResCAM: Draelos, Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks, 2020, arXiv 2011.08891."),
      source("Saliency: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, 2014, arXiv 1312.6034."),
      source("Occlusion: Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv 1311.2901."),
      source("Gradient times activation: Shrikumar et al., Not Just a Black Box, 2016, arXiv 1605.01713."),
      source("Receptive fields: Dumoulin, Visin, A Guide to Convolution Arithmetic for Deep Learning, 2016, arXiv 1603.07285."),
      source("None of these maps proves why a network answers as it does. They are hints to be doubted; that a map looks plausible says nothing about the answer.")));
}

function comparePart(all) {
  const s = { class: all[0].target, map: firstMap(all[0]) === "hires" ? "hires" : "cam" }, columns = el("div", { class: "compare" });
  const shared = all[0].classes.filter((c) => all.every((E) => E.classes.includes(c)));
  if (!shared.includes(s.class)) s.class = shared[0];
  function draw() {
    columns.replaceChildren(...all.map((E) => {
      const layers = [...new Set(E.cams.map((c) => c.layer))];
      // The last ones where there are many.
      const shown = layers.length <= 4 ? layers : [0, 1, 2, 3].map((k) => layers[Math.round((k * (layers.length - 1)) / 3)]);
      return el("article", { class: "column-of" }, heading(E, 3, { text: E.model.text.length > 40 ? `${E.model.text.slice(0, 38)}...` : E.model.text }),
        el("p", { class: "small", text: `${count(E.model.parameters, "parameter")}, ${scaled(E.model.flops)}FLOP` }), probabilityBars(E),
        shown.map((i) => {
          const map = OVERLAYS[s.map].of(E, { camLayer: i, class: s.class }), l = E.layers[i], canvas = overlayCanvas(E);
          canvas.show(map, 0.65);
          const any = largest(map.values) > 0;
          if (l.field && any) {
            canvas.box(...fieldOf(l, map, peak(map)));
          }
          const text = `${l.name}: one pixel sees ${l.field ? by(l.field.size) : "all"} of ${by([E.image.height, E.image.width])}`;
          canvas.setAttribute("aria-label", `${OVERLAYS[s.map].name} of ${E.model.text} for ${className(E, s.class)} at ${text}`);
          return el("figure", {}, canvas, el("figcaption", { text: text + (any ? "" : "; nothing speaks for the class here") }));
        }),
        !layers.length && el("p", { text: "No convolution, so no map of this kind." }));
    }));
  }
  draw();
  return el("section", { class: "part" }, heading(all[0], 2, { text: "Side by side" }),
    el("p", { class: "words", text: "A map behind each convolution, and as a frame what its strongest pixel sees of the image. A deeper network sees more of it at once." }),
    el("div", { class: "fields" }, choice("Which map", [["cam", "Grad-CAM"], ["hires", "HiResCAM"]], s.map, (v) => { s.map = v; draw(); }), dropdown("for class", shared.map((c) => [c, className(all[0], c)]), s.class, (v) => { s.class = v; draw(); })), columns,
    table("The networks", ["network", "layers", "parameters", "FLOP", "last map", "sees", "decision"], all.map((E) => {
      const l = E.cam_layer === null ? null : E.layers[E.cam_layer];
      return [E.model.text, String(E.layers.length), grouped(E.model.parameters), scaled(E.model.flops), l ? by(l.output) : "none", l && l.field ? by(l.field.size) : "all", `${className(E, E.decision)} ${percent(E.probabilities[E.decision])}`];
    })));
}
