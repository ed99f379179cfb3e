// Why this answer: the image, what can lie over it, and the probabilities.

// What several parts of the view need; `level` is that of its first heading.
function prepare(E, level) {
  E.level = level;
  const { channels, height, width } = E.image;
  const pixels = bytes(E.image, "pixels");
  const plane = height * width;
  E.grey = new Float32Array(plane);
  for (let p = 0; p < plane; p++) for (let c = 0; c < channels; c++) E.grey[p] += pixels[c * plane + p] / channels;
  E.readers = E.layers.map((_, i) => E.layers.flatMap((l, k) => (l.inputs.includes(i) ? [k] : [])));
  return E;
}
const GREY_SCALE = { map: GREY, low: 0, high: 255, t: (v) => v / 255 };
const className = (E, c) => E.model.classes[c];
const layerName = (E, i) => (i === null ? "the image" : E.layers[i].name);

// A map to be laid over the image: its numbers, how many rows and columns they have, and of how many pixels a side each is the mean.
// `rows` and `columns` are those that the map would have without the rest of a square at its right and lower edge.
const overlay = (values, [H, W], shrunk) =>
  ({ values, h: Math.ceil(H / shrunk), w: Math.ceil(W / shrunk), rows: H / shrunk, columns: W / shrunk, shrunk });
const pictureOver = (E, picture, shrunk) =>
  overlay(Float32Array.from(bytes(picture), (b) => unbyte(b, picture.low, picture.high)), [E.image.height, E.image.width], shrunk);
function camOver(E, s, kind) {
  const cam = E.cams.find((c) => c.layer === s.camLayer && c.class === s.class);
  return cam && overlay(floats(cam[kind]), E.layers[cam.layer].output.slice(1), cam.shrunk);
}
// What a pixel of such a map sees of the image: the upper left corner and the size of the frame.
function fieldOf(l, { shrunk }, [row, column]) {
  const { start, stride, size } = l.field;
  return [start[0] + row * shrunk * stride[0], start[1] + column * shrunk * stride[1], size[0] + (shrunk - 1) * stride[0], size[1] + (shrunk - 1) * stride[1]];
}

// What can lie over the image; values at any size, and words for it.
const OVERLAYS = {
  none: { name: "X-ray alone", of: () => null, words: () => "The image as the network takes it." },
  cam: {
    name: "Grad-CAM",
    of: (E, s) => camOver(E, s, "values"),
    words: (E, s) => `Where the feature maps of ${layerName(E, s.camLayer)} speak for ${className(E, s.class)}: each map weighted by the mean of its ` +
      "gradient, summed, and what is below 0 left out (Selvaraju et al. 2017)." +
      (E.by_place ? " This network flattens its last maps into a dense layer, which weighs each place by itself; the mean forgets that, so trust HiResCAM more here, unless training moved the images about." : ""),
  },
  hires: {
    name: "HiResCAM",
    of: (E, s) => camOver(E, s, "hires"),
    words: (E, s) => `Gradient times activation at each pixel of ${layerName(E, s.camLayer)}, summed over its channels (Draelos and Carin 2020). Unlike Grad-CAM it does not take the mean of the ` +
      `gradient over the image${E.by_place ? ", which this network needs: its dense layer weighs each place by itself" : "; in front of a global mean both are the same"}.`,
  },
  occlusion: {
    name: "Occlusion",
    of: (E, s) => {
      const o = E.occlusion, of = o.classes.find((c) => c.class === s.class);
      if (!of) return null;
      // Each place stands for the middle of its square; a pixel has the mean of the squares that covered it.
      const { height: H, width: W } = E.image;
      const sum = new Float32Array(H * W), n = new Float32Array(H * W), change = floats(of.logit);
      for (let p = 0; p < o.places[0] * o.places[1]; p++) {
        const top = Math.floor(p / o.places[1]) * o.stride[0], left = (p % o.places[1]) * o.stride[1];
        for (let r = top; r < Math.min(top + o.patch[0], H); r++)
          for (let c = left; c < Math.min(left + o.patch[1], W); c++) { sum[r * W + c] -= change[p]; n[r * W + c] += 1; }
      }
      return overlay(sum.map((v, i) => v / (n[i] || 1)), [H, W], 1);
    },
    words: (E, s) => `By how much the logit of ${className(E, s.class)} falls when a square of ${by(E.occlusion.patch)} pixels is covered with the image's mean grey ` +
      "(orange: it falls, so something there speaks for the class; blue: it rises). Each pixel has the mean of the squares over it (Zeiler and Fergus 2014).",
  },
  saliency: {
    name: "Saliency",
    of: (E, s) => {
      const of = E.saliency.find((c) => c.class === s.class);
      return of && pictureOver(E, of.map, of.shrunk);
    },
    words: (E, s) => `How strongly the logit of ${className(E, s.class)} answers to each pixel, |d logit / d grey level| (Simonyan et al. 2014). It says where a small change ` +
      "matters, not where the network sees something.",
  },
  path: {
    name: "Strongest path",
    of: (E, s) => {
      const of = E.paths.find((c) => c.class === s.class);
      return of && pictureOver(E, of.image, of.shrunk);
    },
    words: (E, s) => `What each pixel gives to the strongest chain of channels behind ${className(E, s.class)} (below): pixel times gradient through those channels alone.`,
  },
};

function probabilityBars(E) {
  return el("ul", { class: "bars", "aria-label": "Probabilities" }, E.probabilities.map((p, c) => [p, c])
    .sort((a, b) => b[0] - a[0]).slice(0, 8).map(([p, c]) => el("li", {},
      el("span", { class: "name" }, className(E, c),
        c === E.decision && el("strong", { text: " decision" }), c === E.label && el("strong", { text: " label" })),
      el("span", { class: "value", text: percent(p) }),
      el("span", { class: "track" }, el("span", { class: "fill", style: `width:${100 * p}%` })))));
}

// The image with what lies over it, and marks.
function overlayCanvas(E, attributes) {
  const { height: H, width: W } = E.image;
  const size = Math.max(1, Math.floor(512 / Math.max(H, W)));
  const canvas = el("canvas", { width: W * size, height: H * size, role: "img", class: "xray", ...attributes });
  const base = picture(E.grey, W, H, GREY_SCALE);
  canvas.show = (map, strength) => {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(base, 0, 0, W * size, H * size);
    if (!map) return null;
    const [low, high] = range(map.values);
    const colours = scale(Math.min(low, 0), high);
    if (high > low || high > 0) {
      // A map as fine as the image is drawn pixel by pixel, a coarser one smoothly.
      const fine = map.h === H && map.w === W;
      const values = fine ? map.values : stretch(map, H * size, W * size);
      const [h, w] = fine ? [H, W] : [H * size, W * size];
      const layer = el("canvas", { width: w, height: h });
      const c2 = layer.getContext("2d"), image = c2.createImageData(w, h);
      const most = Math.max(-low, high) || 1;
      for (let p = 0; p < w * h; p++) {
        const i = 3 * Math.max(0, Math.min(255, Math.round(255 * colours.t(values[p]))));
        const alpha = 255 * strength * Math.min(1, 0.1 + 1.1 * Math.sqrt(Math.abs(values[p]) / most));
        image.data.set([colours.map[i], colours.map[i + 1], colours.map[i + 2], alpha], 4 * p);
      }
      c2.putImageData(image, 0, 0);
      context.drawImage(layer, 0, 0, W * size, H * size);
    }
    return { ...colours, low: Math.min(colours.low, low), high: Math.max(colours.high, high) };
  };
  canvas.box = outline(canvas, size);
  return canvas;
}

function peak(map) {
  let at = 0;
  for (let p = 1; p < map.values.length; p++) if (map.values[p] > map.values[at]) at = p;
  return [Math.floor(at / map.w), at % map.w];
}

const firstMap = (E) => (E.cams.length ? (E.by_place ? "hires" : "cam") : "occlusion");
const atLayer = (kind) => kind === "cam" || kind === "hires";

function answerPart(E) {
  const s = { overlay: firstMap(E), class: E.target, camLayer: E.cam_layer, strength: 0.65, field: true };
  const canvas = overlayCanvas(E);
  const caption = el("p", { class: "words" }), legend = el("div", {}), where = el("p", { class: "where", "aria-live": "polite" });
  const camLayers = [...new Set(E.cams.map((c) => c.layer))];
  const layer = dropdown("at layer", camLayers.map((i) => [i, `${E.layers[i].name} (${by(E.layers[i].output)})`]), s.camLayer,
    (v) => { s.camLayer = v; draw(); });
  function draw() {
    const kind = OVERLAYS[s.overlay], map = kind.of(E, s);
    const colours = canvas.show(map, s.strength);
    caption.textContent = kind.words(E, s);
    legend.replaceChildren(...(colours ? [colourBar(colours, s.overlay === "occlusion" ? "fall of the logit" : "")] : []));
    layer.hidden = !atLayer(s.overlay);
    where.textContent = "";
    const label = `${E.image.name}, ${kind.name} for ${className(E, s.class)}`;
    if (map && colours && largest(map.values) > 0) {
      const [row, column] = peak(map);
      if (atLayer(s.overlay) && E.layers[s.camLayer].field) {
        const frame = fieldOf(E.layers[s.camLayer], map, [row, column]);
        canvas.box(...frame);
        where.textContent = `Strongest at row ${row}, column ${column} of the map${map.shrunk > 1 ? `, which is shrunk ${map.shrunk} times` : ""}; the frame is what that pixel sees, ${by(frame.slice(2))} pixels of the image.`;
      } else {
        const at = (k, size, of) => Math.min(size - 1, Math.round(((k + 0.5) * size) / of - 0.5));
        where.textContent = `Strongest at row ${at(row, E.image.height, map.rows)}, column ${at(column, E.image.width, map.columns)}.`;
      }
    } else if (map) where.textContent = "Nothing here speaks for this class: the map is 0 everywhere.";
    canvas.setAttribute("aria-label", `${label}. ${where.textContent}`);
  }
  const kinds = Object.entries(OVERLAYS).filter(([k]) => (!atLayer(k) || E.cams.length) && (k !== "path" || E.paths.length)).map(([k, v]) => [k, v.name]);
  const strength = el("input", { type: "range", min: 0, max: 100, value: 65, oninput: () => { s.strength = strength.value / 100; draw(); } });
  const part = el("section", { class: "part answer" },
    heading(E, 2, { text: "Why this answer" }),
    el("div", { class: "two" },
      el("div", { class: "figure" }, canvas, legend),
      el("div", {},
        probabilityBars(E),
        el("p", { class: "small" }, `Logits ${E.logits.map((z) => num(z, 5)).join(", ")}` + (E.loss === null ? "." : `; loss against the label ${className(E, E.label)} ${num(E.loss, 4)}.`)),
        heading(E, 3, { text: "Over the X-ray" }),
        choice("What lies over the X-ray", kinds, s.overlay, (v) => { s.overlay = v; draw(); }),
        el("div", { class: "fields" },
          dropdown("for class", E.classes.map((c) => [c, className(E, c)]), s.class, (v) => { s.class = v; draw(); }),
          layer, labelled("strength", strength)),
        caption, where)));
  draw();
  return part;
}
