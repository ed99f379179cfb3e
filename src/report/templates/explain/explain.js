// The view of an Explanation (src/explain/view.rs): radiogradExplain(root, data) fills `root`, an element of class "rgx".
//
// `data` is the JSON of an Explanation as an object, or { compare: [Explanation, ...] } for several networks on one image. What the
// view shows is in `data`; it asks for nothing. `root.radiograd.terms(network, layer, mode, place)` gives the terms of a stepped
// convolution with their sum and the executor's value, for scripts that check them.
function radiogradExplain(root, data) {
  "use strict";
  const uid = `rgx${(radiogradExplain.count = (radiogradExplain.count || 0) + 1)}`;
  let ids = 0;
  const newId = () => `${uid}-${(ids += 1)}`;
  const NOTICE = root.dataset.notice ||
    "This is software for study. It is not a medical device, and nothing here may be used to diagnose or treat anyone.";

  // ------------------------------------------------------------------------------------------------------------ small tools

  // An element: attributes, "on..." listeners, and children, texts among them.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "text") node.textContent = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
    return node;
  }

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

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

  // ---------------------------------------------------------------------------------------------------------------- colours

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

  // ------------------------------------------------------------------------------------------------------------ small parts

  // Buttons of which one is pressed. `options` are [value, text].
  function choice(label, options, value, change) {
    const group = el("div", { class: "choice", role: "group", "aria-label": label });
    const buttons = options.map(([v, text]) => el("button", { type: "button", "aria-pressed": String(v === value), text,
      onclick: () => { select(v); change(v); } }));
    function select(v) { buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(options[i][0] === v))); }
    group.append(...buttons);
    group.select = select;
    return group;
  }

  function labelled(text, control) {
    const id = newId();
    control.id = id;
    return el("span", { class: "field" }, el("label", { for: id, text }), control);
  }
  function dropdown(text, options, value, change) {
    const select = el("select", { onchange: () => change(Number(select.value)) },
      options.map(([v, name]) => el("option", { value: v, selected: v === value, text: name })));
    const out = labelled(text, select);
    out.set = (v) => { select.value = v; };
    return out;
  }
  function numberField(text, value, most, change) {
    const input = el("input", { type: "number", min: 0, max: most, value,
      onchange: () => { input.value = Math.max(0, Math.min(most, Math.round(Number(input.value) || 0))); change(Number(input.value)); } });
    const out = labelled(text, input);
    out.set = (v) => { input.value = v; };
    return out;
  }

  function table(caption, header, rows, folded) {
    const body = el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, el("table", {},
      el("caption", { text: caption }),
      el("thead", {}, el("tr", {}, header.map((h) => el("th", { scope: "col", text: h })))),
      el("tbody", {}, rows.map((r) => el("tr", {}, r.map((c, i) =>
        el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, text: c })))))));
    return folded ? el("details", {}, el("summary", { text: folded }), body) : body;
  }

  function facts(pairs) {
    return el("dl", { class: "facts" }, pairs.filter((p) => p).map(([name, value]) =>
      el("div", {}, el("dt", { text: name }), el("dd", { text: value }))));
  }

  // Tabs as WAI-ARIA describes them: arrows move, one is in the order of the tab key. `panels` are [name, title, make].
  function tabs(label, panels, chosen, change) {
    const list = el("div", { class: "tabs", role: "tablist", "aria-label": label });
    const holder = el("div", { class: "panel", role: "tabpanel", tabindex: "0" });
    holder.id = newId();
    const buttons = panels.map(([name, title], i) => el("button", { type: "button", role: "tab", id: newId(), "aria-controls": holder.id,
      text: title, onclick: () => open(name),
      onkeydown: (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (!step) return;
        const next = (i + step + panels.length) % panels.length;
        open(panels[next][0]);
        buttons[next].focus();
        e.preventDefault();
      } }));
    function open(name) {
      const i = Math.max(0, panels.findIndex((p) => p[0] === name));
      buttons.forEach((b, k) => { b.setAttribute("aria-selected", String(k === i)); b.tabIndex = k === i ? 0 : -1; });
      holder.setAttribute("aria-labelledby", buttons[i].id);
      holder.replaceChildren(panels[i][2]());
      change(panels[i][0]);
    }
    list.append(...buttons);
    open(chosen);
    return [list, holder];
  }

  // A canvas on which a pixel is chosen by pointer or arrow keys.
  function pickable(canvas, w, h, label, pick) {
    const at = { row: 0, column: 0 };
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "pixel chooser");
    canvas.setAttribute("aria-label", `${label}. Arrow keys choose a pixel.`);
    canvas.classList.add("pickable");
    const go = (row, column) => {
      [at.row, at.column] = [Math.max(0, Math.min(h - 1, row)), Math.max(0, Math.min(w - 1, column))];
      pick(at.row, at.column);
    };
    canvas.addEventListener("click", (e) => {
      const box = canvas.getBoundingClientRect();
      go(Math.floor(((e.clientY - box.top) / box.height) * h), Math.floor(((e.clientX - box.left) / box.width) * w));
    });
    canvas.addEventListener("keydown", (e) => {
      const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key] || [];
      if (dr === undefined) return;
      go(at.row + dr, at.column + dc);
      e.preventDefault();
    });
    canvas.place = (row, column) => { [at.row, at.column] = [row, column]; };
    return canvas;
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
    canvas.box = (row, column, rows, columns, style = MARK, width = 3) => {
      const context = canvas.getContext("2d");
      for (const [colour, thick] of [["#000", width + 2], [style, width]]) {
        context.strokeStyle = colour;
        context.lineWidth = thick;
        context.strokeRect(column * size, row * size, columns * size, rows * size);
      }
    };
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

  // ------------------------------------------------------------------------------------------------------- one explanation

  function prepare(E) {
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

  // A map as large as the image: bilinear between the centres of its pixels.
  function stretch(values, h, w, H, W) {
    const axis = (n, N) => Array.from({ length: N }, (_, i) => {
      const at = Math.max(0, ((i + 0.5) * n) / N - 0.5);
      const low = Math.min(Math.floor(at), n - 1);
      return [low, Math.min(low + 1, n - 1), at - low];
    });
    const rows = axis(h, H), columns = axis(w, W);
    const out = new Float32Array(H * W);
    rows.forEach(([r0, r1, tr], i) => columns.forEach(([c0, c1, tc], j) => {
      const top = values[r0 * w + c0] * (1 - tc) + values[r0 * w + c1] * tc;
      const bottom = values[r1 * w + c0] * (1 - tc) + values[r1 * w + c1] * tc;
      out[i * W + j] = top * (1 - tr) + bottom * tr;
    }));
    return out;
  }

  // What can lie over the image; values at any size, and words for it.
  const OVERLAYS = {
    none: { name: "X-ray alone", of: () => null, words: () => "The image as the network takes it." },
    cam: {
      name: "Grad-CAM",
      of: (E, s) => {
        const cam = E.cams.find((c) => c.layer === s.camLayer && c.class === s.class);
        return cam && { values: floats(cam.values), h: cam.height, w: cam.width };
      },
      words: (E, s) => `Where the feature maps of ${layerName(E, s.camLayer)} speak for ${className(E, s.class)}: each map weighted by the mean of its ` +
        "gradient, summed, and what is below 0 left out (Selvaraju et al. 2017)." +
        (E.by_place ? " This network flattens its last maps into a dense layer, which weighs each place by itself; the mean forgets that, so trust HiResCAM more here." : ""),
    },
    hires: {
      name: "HiResCAM",
      of: (E, s) => {
        const cam = E.cams.find((c) => c.layer === s.camLayer && c.class === s.class);
        return cam && { values: floats(cam.hires), h: cam.height, w: cam.width };
      },
      words: (E, s) => `Gradient times activation at each pixel of ${layerName(E, s.camLayer)}, summed over its channels (Draelos and Carin 2020). Unlike Grad-CAM it does not take the mean of the ` +
        `gradient over the image${E.by_place ? ", which this network needs: its dense layer weighs each place by itself" : "; in front of a global mean both are the same but for a factor"}.`,
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
        return { values: sum.map((v, i) => v / (n[i] || 1)), h: H, w: W };
      },
      words: (E, s) => `By how much the logit of ${className(E, s.class)} falls when a square of ${by(E.occlusion.patch)} pixels is covered with the image's mean grey ` +
        "(orange: it falls, so something there speaks for the class; blue: it rises). Each pixel has the mean of the squares over it (Zeiler and Fergus 2014).",
    },
    saliency: {
      name: "Saliency",
      of: (E, s) => {
        const of = E.saliency.find((c) => c.class === s.class);
        return of && { values: Float32Array.from(bytes(of.map), (b) => unbyte(b, of.map.low, of.map.high)), h: E.image.height, w: E.image.width };
      },
      words: (E, s) => `How strongly the logit of ${className(E, s.class)} answers to each pixel, |d logit / d grey level| (Simonyan et al. 2014). It says where a small change ` +
        "matters, not where the network sees something.",
    },
    path: {
      name: "Strongest path",
      of: (E, s) => {
        const of = E.paths.find((c) => c.class === s.class);
        return of && { values: Float32Array.from(bytes(of.image), (b) => unbyte(b, of.image.low, of.image.high)), h: E.image.height, w: E.image.width };
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
      let low = Infinity, high = -Infinity;
      for (const v of map.values) { low = Math.min(low, v); high = Math.max(high, v); }
      const colours = scale(Math.min(low, 0), high);
      if (high > low || high > 0) {
        // A map as fine as the image is drawn pixel by pixel, a coarser one smoothly.
        const fine = map.h === H && map.w === W;
        const values = fine ? map.values : stretch(map.values, map.h, map.w, H * size, W * size);
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
    canvas.box = (row, column, rows, columns, style = MARK, width = 3) => {
      const context = canvas.getContext("2d");
      for (const [colour, thick] of [["#000", width + 2], [style, width]]) {
        context.strokeStyle = colour;
        context.lineWidth = thick;
        context.strokeRect(column * size, row * size, columns * size, rows * size);
      }
    };
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
      if (map && colours && Math.max(...map.values) > 0) {
        const [row, column] = peak(map);
        const field = atLayer(s.overlay) ? E.layers[s.camLayer].field : null;
        if (field) {
          const top = field.start[0] + row * field.stride[0], left = field.start[1] + column * field.stride[1];
          canvas.box(top, left, field.size[0], field.size[1]);
          where.textContent = `Strongest at row ${row}, column ${column} of the map; the frame is what that pixel sees, ${by(field.size)} pixels of the image.`;
        } else where.textContent = `Strongest at row ${Math.round((row + 0.5) * E.image.height / map.h - 0.5)}, column ${Math.round((column + 0.5) * E.image.width / map.w - 0.5)}.`;
      } else if (map) where.textContent = "Nothing here speaks for this class: the map is 0 everywhere.";
      canvas.setAttribute("aria-label", `${label}. ${where.textContent}`);
    }
    const kinds = Object.entries(OVERLAYS).filter(([k]) => (!atLayer(k) || E.cams.length) && (k !== "path" || E.paths.length)).map(([k, v]) => [k, v.name]);
    const strength = el("input", { type: "range", min: 0, max: 100, value: 65, oninput: () => { s.strength = strength.value / 100; draw(); } });
    const part = el("section", { class: "part answer" },
      el("h2", { text: "Why this answer" }),
      el("div", { class: "two" },
        el("div", { class: "figure" }, canvas, legend),
        el("div", {},
          probabilityBars(E),
          el("p", { class: "small" }, `Logits ${E.logits.map((z) => num(z, 5)).join(", ")}` + (E.loss === null ? "." : `; loss against the label ${className(E, E.label)} ${num(E.loss, 4)}.`)),
          el("h3", { text: "Over the X-ray" }),
          choice("What lies over the X-ray", kinds, s.overlay, (v) => { s.overlay = v; draw(); }),
          el("div", { class: "fields" },
            dropdown("for class", E.classes.map((c) => [c, className(E, c)]), s.class, (v) => { s.class = v; draw(); }),
            layer, labelled("strength", strength)),
          caption, where)));
    draw();
    return part;
  }

  // ----------------------------------------------------------------------------------------------------- the strip of layers

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
      "aria-label": `${l.name}, ${l.kind}, output ${by(l.output)}, ${count(l.parameters, "parameter")}, sees ${l.field ? `${by(l.field.size)} pixels` : "the whole image"}`,
      onkeydown: (e) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: E.layers.length - 1 }[e.key];
        if (to === undefined || !buttons[to]) return;
        open(to);
        buttons[to].focus();
        e.preventDefault();
      } },
      thumb(l), el("span", { class: "layer-name", text: l.name }), el("span", { class: "layer-shape", text: by(l.output) }),
      el("span", { class: "layer-small", text: l.parameters ? `${scaled(l.parameters)} params` : "no params" }),
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
      detail.replaceChildren(...layerDetail(E, i, s, open));
    }
    open(first, true);
    const part = el("section", { class: "part" }, el("h2", { text: "The network" }),
      el("p", { class: "words", text: `${E.model.text}: ${count(E.layers.length, "layer")}, ${count(E.model.parameters, "parameter")}, ${scaled(E.model.flops)}FLOP for one image. Each picture shows the layer's liveliest map. Choose a layer; arrow keys go on.` }),
      strip, detail);
    part.open = (i, tab) => { s.tab = tab || s.tab; open(i); };
    return part;
  }

  function layerDetail(E, i, s, open) {
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
        el("h3", { text: l.name }), el("code", { text: l.text }),
        el("span", { class: "walk" },
          el("button", { type: "button", disabled: i === 0, onclick: () => open(i - 1), "aria-label": "previous layer", text: "\u2190" }),
          el("button", { type: "button", disabled: i === E.layers.length - 1, onclick: () => open(i + 1), "aria-label": "next layer", text: "\u2192" }))),
      el("p", { class: "words", text: `${KINDS[l.kind] || ""} Reads ${from}.` }),
      facts([
        ["output", by(l.output)],
        ["parameters", grouped(l.parameters) + (l.buffers ? ` and ${grouped(l.buffers)} statistics` : "")],
        ["work", `${scaled(l.flops)}FLOP`],
        ["one output sees", l.field ? `${by(l.field.size)} pixels, neighbours ${by(l.field.stride)} apart, the first from (${l.field.start.join(", ").replace(/-/g, "\u2212")})` : "the whole image"],
        l.silent && ["silent here", `${grouped(l.silent.count)} of ${count(l.silent.of, "unit")}${l.silent.count ? `: ${l.silent.units.slice(0, 12).join(", ")}${l.silent.count > 12 ? " ..." : ""}` : ""}`],
        ["gradient of the logit", `norm ${num(g.norm, 3)}`],
      ]), list, holder];
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

  function mapsPanel(E, i) {
    const s = { layer: i, shared: false, channel: null };
    const stages = stagesOf(E, i);
    const grid = el("div", { class: "maps" }), large = el("div", { class: "two narrow" }), legend = el("div", {}), note = el("p", { class: "small" });
    function colours(l, k) {
      return s.shared ? scale(Math.min(...l.maps.low), Math.max(...l.maps.high)) : scale(l.maps.low[k], l.maps.high[k]);
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
          "aria-label": `channel ${c}, from ${num(m.low[k], 3)} to ${num(m.high[k], 3)}${silent ? ", silent" : ""}`,
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
      colourBar(colours), el("div", { class: `filters${f.inputs.length > 1 ? " wide" : ""}` }, f.outputs.map(tile)));
  }

  function histogram(h, title) {
    const W = 320, H = 120, most = Math.max(1, ...h.bins), n = h.bins.length || 1;
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

  // ------------------------------------------------------------------------------------------------- the convolution, stepped

  const MODES = {
    forward: { name: "One output pixel", page: "forward", result: "y" },
    input: { name: "Input gradient", page: "grad_input", result: "dx" },
    weight: { name: "One weight's gradient", page: "grad_weight", result: "dw" },
  };

  // The numbers of a stepped convolution, decoded.
  function numbersOf(t) {
    if (!t.numbers) {
      Object.defineProperty(t, "numbers", { value: {
        x: floats(t.x), w: floats(t.weights), bias: floats(t.bias), y: floats(t.y), dy: floats(t.dy), columns: floats(t.columns), dx: floats(t.dx), dw: floats(t.dw),
      } });
    }
    return t.numbers;
  }

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
            term(n.w[((place * cg + c) * kh + k) * kw + l], n.x[((first + c) * H + row) * W + column], { k, l, channel: c, row, column,
              text: `w[o ${o}, c ${c}, k ${k}, l ${l}] times x[channel ${first + c}, row ${row}, column ${column}]` });
        }
      }
      executor = n.y[(place * OH + i) * OW + j];
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
            term(w, n.dy[((first + o) * OH + i) * OW + j], { k, l, channel: o, row: i, column: j,
              text: `w[o ${first + o}, c ${inside}, k ${k}, l ${l}] times dy[channel ${first + o}, row ${i}, column ${j}]` });
          }
        }
      }
      executor = n.dx[(place * H + row) * W + column];
      say("store", { text: `The sum is dx[channel ${channel}, row ${row}, column ${column}].`, sum, end: true });
    } else {
      const { place, input, k, l } = at, o = t.outputs[place], c = t.inputs[input];
      const dyAt = t.dy_whole ? o : place;
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
          const a = n.x[(c * H + row) * W + column], b = n.dy[(dyAt * OH + i) * OW + j], product = f32(a * b);
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

  function stepPanel(E, index) {
    const t = E.layers[index].stepped, n = numbersOf(t), [C, H, W] = t.x_shape, [O, OH, OW] = t.y_shape, [kh, kw] = t.kernel;
    const cg = C / t.groups, og = O / t.groups;
    const range = (v) => [v.reduce((a, b) => Math.min(a, b), Infinity), v.reduce((a, b) => Math.max(a, b), -Infinity)];
    // Gradients have both signs, and 0 in the middle of the colours.
    const signed = (low, high) => { const most = Math.max(-low, high) || 1; return { map: SIGNED, low: -most, high: most, t: (q) => (q + most) / (2 * most) }; };
    const own = (v) => signed(...range(v));
    // The image itself is grey, whatever normalising made of it.
    const ofX = (v) => { const [low, high] = range(v); return E.layers[index].inputs[0] === null ? { map: GREY, low, high, t: (q) => (q - low) / (high - low || 1) } : scale(low, high); };
    const strongest = (values, list, plane) => {
      let best = 0, most = -1;
      list.forEach((_, p) => { const v = values.subarray(p * plane, (p + 1) * plane).reduce((a, b) => Math.max(a, Math.abs(b)), 0); if (v > most) [best, most] = [p, v]; });
      return best;
    };
    const place = strongest(n.dy, t.dy_whole ? t.outputs.map((_, p) => p) : t.outputs, OH * OW);
    const s = { mode: "forward", place: t.dy_whole && t.outputs.length < O ? 0 : place, input: 0, i: Math.floor(OH / 2), j: Math.floor(OW / 2), row: Math.floor(H / 2), column: Math.floor(W / 2), k: Math.floor(kh / 2), l: Math.floor(kw / 2), at: 0, channel: 0 };
    // Begin where something happens: the pixel of y whose gradient is largest.
    {
      const plane = n.dy.subarray((t.dy_whole ? t.outputs[s.place] : s.place) * OH * OW, ((t.dy_whole ? t.outputs[s.place] : s.place) + 1) * OH * OW);
      let best = Math.floor(OH / 2) * OW + Math.floor(OW / 2);
      plane.forEach((v, p) => { if (Math.abs(v) > Math.abs(plane[best])) best = p; });
      [s.i, s.j] = [Math.floor(best / OW), best % OW];
      [s.row, s.column] = [Math.min(H - 1, s.i * t.stride[0]), Math.min(W - 1, s.j * t.stride[1])];
    }
    let run = null, timer = null;
    const body = el("div", {}), stop = () => { clearInterval(timer); timer = null; };
    const modes = Object.entries(MODES).filter(([m]) => m !== "input" || t.dy_whole).map(([m, v]) => [m, v.name]);
    const outer = el("div", { class: "stepped" },
      el("p", { class: "words", text: `The very kernel that computes this layer, ${E.shader.name}, one line after the other. Gradients are those of the logit of ${className(E, E.target)}.` }),
      choice("What is computed", modes, s.mode, (m) => { stop(); s.mode = m; s.at = 0; s.channel = 0; build(); }), body);

    function build() {
      const m = s.mode, column = (list, name, value, change) => dropdown(name, list.map((c, p) => [p, String(c)]), value, change);
      const again = () => { stop(); s.at = 0; run = null; show(true); };
      const fields = [];
      if (m !== "input") fields.push(column(t.outputs, "output channel", s.place, (v) => { s.place = v; again(); }));
      if (m !== "forward") fields.push(column(t.inputs, "input channel", s.input, (v) => { s.input = v; again(); }));
      const set = {};
      const field = (key, text, most) => fields.push((set[key] = numberField(text, s[key], most, (v) => { s[key] = v; again(); })));
      if (m === "forward") { field("i", "row", OH - 1); field("j", "column", OW - 1); }
      if (m === "input") { field("row", "row", H - 1); field("column", "column", W - 1); }
      if (m === "weight") { field("k", "kernel row", kh - 1); field("l", "kernel column", kw - 1); }
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
      let draw = null;
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
        const [dh, dw] = forward ? [OH, OW] : [H, W], [sh, sw] = forward ? [H, W] : [OH, OW];
        const result = forward ? n.y.subarray(s.place * OH * OW, (s.place + 1) * OH * OW) : n.dx.subarray(s.input * H * W, (s.input + 1) * H * W);
        const from = forward ? n.x : n.dy, plane = (c) => from.subarray((first + c) * sh * sw, (first + c + 1) * sh * sw);
        const [row, column] = forward ? [s.i, s.j] : [s.row, s.column];
        const cell = (c, k, l) => {
          const e = run.grid.get((c * kh + k) * kw + l);
          return e === undefined ? null : run.events[e];
        };
        run.grid = new Map();
        run.events.forEach((e, at) => { if (e.kind === "term") { e.at = at; run.grid.set((e.channel * kh + e.k) * kw + e.l, at); } });

        const chosen = plate(result, dw, dh, forward ? scale(...range(result)) : own(result));
        pickable(chosen, dw, dh, forward ? `Output channel ${t.outputs[s.place]}` : `dx of input channel ${t.inputs[s.input]}`, pick);
        chosen.place(row, column);
        chosen.box(row, column, 1, 1, MARK, 3);
        const source = el("figure", {});
        const tiles = el("div", { class: "windows" });
        const grids = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Window, weights and products" });
        const shades = forward ? ofX(from) : own(from);
        const title = forward ? "y" : "dx", other = forward ? "x" : "dy";
        planes.replaceChildren(el("figure", {}, el("figcaption", { text: `${other}, ${forward ? "input" : "output"} channel` }), source), el("span", { class: "arrow", "aria-hidden": "true", text: "\u2192" }),
          el("figure", {}, el("figcaption", { text: `${title}, channel ${forward ? t.outputs[s.place] : t.inputs[s.input]}: choose a pixel` }), chosen));
        left.replaceChildren(el("h4", { text: channels === 1 ? "The window, and what it adds" : `The window on each of ${channels} ${forward ? "input" : "output"} channels, and what each adds` }), tiles, grids);
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
            if (forward) map.box(row * t.stride[0] - t.padding[0], column * t.stride[1] - t.padding[1], (kh - 1) * t.dilation[0] + 1, (kw - 1) * t.dilation[1] + 1);
            else for (let k = 0; k < kh; k++) for (let l = 0; l < kw; l++) { const e = cell(c, k, l); if (e) map.box(e.row, e.column, 1, 1, MARK, 2); }
            source.replaceChildren(map, el("span", { class: "small", text: `channel ${first + c}` }));
            shownChannel = c;
          }
          const sums = new Float64Array(channels);
          for (let q = 0; q <= at; q++) { const e = run.events[q]; if (e.kind === "term") sums[e.channel] += e.product; }
          buttons.forEach((b, k) => {
            b.setAttribute("aria-pressed", String(k === c));
            b.value_.textContent = num(sums[k], 2);
            b.setAttribute("aria-label", `channel ${first + k}, adds ${num(sums[k], 3)} so far`);
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
        const o = t.outputs[s.place], c = t.inputs[s.input], dyAt = t.dy_whole ? o : s.place;
        if (Math.floor(o / og) !== Math.floor(c / cg)) {
          planes.replaceChildren(el("p", { text: "These two channels are of different groups: no weight joins them." }));
          left.replaceChildren();
          return () => {};
        }
        const x = n.x.subarray(c * H * W, (c + 1) * H * W), dy = n.dy.subarray(dyAt * OH * OW, (dyAt + 1) * OH * OW), products = new Float32Array(OH * OW);
        run.events.forEach((e) => { if (e.kind === "term") products[e.i * OW + e.j] = e.product; });
        const maps = [[x, W, H, `x, input channel ${c}`, ofX], [dy, OW, OH, `dy, output channel ${o}`, own], [products, OW, OH, "products: they add up to dw", own]].map(([v, w, h, text, colours]) => {
          const map = plate(v, w, h, colours(v), { "aria-label": text });
          return { map, figure: el("figure", {}, el("figcaption", { text }), map) };
        });
        planes.replaceChildren(maps[0].figure, el("span", { class: "arrow", "aria-hidden": "true", text: "\u00d7" }), maps[1].figure, el("span", { class: "arrow", "aria-hidden": "true", text: "=" }), maps[2].figure);
        const rows = el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Products of this row" });
        const kernel = el("div", {});
        left.replaceChildren(kernel, el("h4", { text: "Products of this row of outputs" }), rows);
        const dwAt = (k, l) => n.dw[((s.place * t.inputs.length + s.input) * kh + k) * kw + l];
        kernel.replaceChildren(el("table", { class: "grid" }, el("caption", { text: "dw of this kernel; choose a weight" }), el("tbody", {}, Array.from({ length: kh }, (_, k) => el("tr", {}, Array.from({ length: kw }, (_, l) =>
          el("td", { class: k === s.k && l === s.l ? "now" : "" }, el("button", { type: "button", "aria-label": `weight row ${k}, column ${l}, gradient ${num(dwAt(k, l), 3)}`, text: num(dwAt(k, l), 3), onclick: () => { [s.k, s.l] = [k, l]; again(); } }))))))));
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

  // --------------------------------------------------------------------------------------------------------- path and notes

  function pathPart(E, open) {
    if (!E.paths.length) return null;
    const s = { class: E.target }, way = el("ol", { class: "way" });
    function draw() {
      const path = E.paths.find((p) => p.class === s.class);
      const stages = path.stages.map((st) => {
        const l = E.layers[st.layer];
        return el("li", {}, el("h4", {}, el("button", { type: "button", class: "link", text: l.name, onclick: () => open(st.layer, "maps") })),
          st.channels.length ? el("ul", { class: "channels" }, st.channels.map((c, k) => {
            const at = l.maps ? l.maps.channels.indexOf(c.channel) : -1;
            return el("li", { class: k === 0 ? "first" : "" },
              at >= 0 ? picture(mapValues(l, at), l.maps.width, l.maps.height, scale(l.maps.low[at], l.maps.high[at]), { "aria-label": `feature map ${c.channel}` }) : el("span", { class: "no-map", text: "not kept" }),
              el("span", { text: `channel ${c.channel}` }), el("span", { class: "track" }, el("span", { class: "fill", style: `width:${100 * c.share}%` })), el("span", { text: percent(c.share) }));
          })) : el("p", { class: "small", text: "No channel here speaks for it: the way ends." }));
      });
      const map = OVERLAYS.path.of(E, s), image = overlayCanvas(E, { "aria-label": "What the pixels give to this chain of channels" });
      image.show(map, 0.9);
      way.replaceChildren(el("li", { class: "end" }, el("h4", { text: className(E, s.class) }), el("p", { text: percent(E.probabilities[s.class]) })), ...stages,
        el("li", { class: "end" }, el("h4", { text: "image" }), image));
    }
    draw();
    return el("section", { class: "part" }, el("h2", { text: "The strongest channels back to the image" }),
      el("p", { class: "words", text: "From the class to the channels that speak for it most (activation times gradient, as a share of all that speak for it). Each next stage asks what the first channel of the stage before owes to the layer in front of it." }),
      el("div", { class: "fields" }, dropdown("class", E.paths.map((p) => [p.class, className(E, p.class)]), s.class, (v) => { s.class = v; draw(); })), way);
  }

  function notesPart(E) {
    const source = (text) => el("li", { text });
    return el("section", { class: "part" }, el("h2", { text: "What is rounded, and where the methods come from" }),
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

  function whole(E) {
    const network = networkPart(E);
    return [answerPart(E), network, pathPart(E, (layer, tab) => { network.open(layer, tab); network.scrollIntoView({ block: "start" }); }), notesPart(E)];
  }

  // ----------------------------------------------------------------------------------------------------- several side by side

  function comparePart(all) {
    const s = { class: all[0].target, map: firstMap(all[0]) === "hires" ? "hires" : "cam" }, columns = el("div", { class: "compare" });
    const shared = all[0].classes.filter((c) => all.every((E) => E.classes.includes(c)));
    if (!shared.includes(s.class)) s.class = shared[0];
    function draw() {
      columns.replaceChildren(...all.map((E) => {
        const layers = [...new Set(E.cams.map((c) => c.layer))];
        // The last ones where there are many.
        const shown = layers.length <= 4 ? layers : [0, 1, 2, 3].map((k) => layers[Math.round((k * (layers.length - 1)) / 3)]);
        return el("article", { class: "column-of" }, el("h3", { text: E.model.text.length > 40 ? `${E.model.text.slice(0, 38)}...` : E.model.text }),
          el("p", { class: "small", text: `${count(E.model.parameters, "parameter")}, ${scaled(E.model.flops)}FLOP` }), probabilityBars(E),
          shown.map((i) => {
            const map = OVERLAYS[s.map].of(E, { camLayer: i, class: s.class }), l = E.layers[i], canvas = overlayCanvas(E);
            canvas.show(map, 0.65);
            const any = Math.max(...map.values) > 0;
            if (l.field && any) {
              const [row, column] = peak(map);
              canvas.box(l.field.start[0] + row * l.field.stride[0], l.field.start[1] + column * l.field.stride[1], ...l.field.size);
            }
            const text = `${l.name}: one pixel sees ${l.field ? by(l.field.size) : "all"} of ${by([E.image.height, E.image.width])}`;
            canvas.setAttribute("aria-label", `${OVERLAYS[s.map].name} of ${E.model.text} for ${className(E, s.class)} at ${text}`);
            return el("figure", {}, canvas, el("figcaption", { text: text + (any ? "" : "; nothing speaks for the class here") }));
          }),
          !layers.length && el("p", { text: "No convolution, so no map of this kind." }));
      }));
    }
    draw();
    return el("section", { class: "part" }, el("h2", { text: "Side by side" }),
      el("p", { class: "words", text: "A map behind each convolution, and as a frame what its strongest pixel sees of the image. A deeper network sees more of it at once." }),
      el("div", { class: "fields" }, choice("Which map", [["cam", "Grad-CAM"], ["hires", "HiResCAM"]], s.map, (v) => { s.map = v; draw(); }), dropdown("for class", shared.map((c) => [c, className(all[0], c)]), s.class, (v) => { s.class = v; draw(); })), columns,
      table("The networks", ["network", "layers", "parameters", "FLOP", "last map", "sees", "decision"], all.map((E) => {
        const l = E.cam_layer === null ? null : E.layers[E.cam_layer];
        return [E.model.text, String(E.layers.length), grouped(E.model.parameters), scaled(E.model.flops), l ? by(l.output) : "none", l && l.field ? by(l.field.size) : "all", `${className(E, E.decision)} ${percent(E.probabilities[E.decision])}`];
      })));
  }

  // ------------------------------------------------------------------------------------------------------------------- page

  const all = (data.compare || [data]).map(prepare);
  const first = all[0];
  const themes = [["auto", "auto"], ["light", "light"], ["dark", "dark"]];
  const theme = choice("Colours of the page", themes, "auto", (v) => { if (v === "auto") delete root.dataset.theme; else root.dataset.theme = v; });
  const verdict = all.length === 1
    ? `${className(first, first.decision)}, ${percent(first.probabilities[first.decision])}`
    : all.map((E) => `${E.model.text}: ${className(E, E.decision)} ${percent(E.probabilities[E.decision])}`).join(" \u00b7 ");
  const head = el("header", {},
    el("div", { class: "top" }, el("h1", { text: all.length === 1 ? `What ${first.model.text.length > 40 ? "the network" : first.model.text} sees` : "What the networks see" }), theme),
    el("p", { class: "subtitle", text: `${first.image.name}: ${verdict}` }),
    el("p", { class: "notice", role: "note", text: NOTICE }));
  const content = el("div", {});
  if (all.length === 1) content.append(...whole(first).filter(Boolean));
  else {
    const holder = el("div", {});
    const pick = choice("Network", all.map((E, k) => [k, `${k + 1}: ${E.model.text.slice(0, 30)}`]), 0, (k) => holder.replaceChildren(...whole(all[k]).filter(Boolean)));
    holder.append(...whole(first).filter(Boolean));
    content.append(comparePart(all), el("section", { class: "part" }, el("h2", { text: "One network in full" }), pick), holder);
  }
  root.classList.add("rgx");
  root.replaceChildren(el("div", { class: "inner" }, head, content));
  const terms = (network, layer, mode, at) => {
    const run = events(all[network].layers[layer].stepped, mode, at);
    return { terms: run.events.filter((e) => e.kind === "term").map((e) => [e.a, e.b]), sum: run.sum, executor: run.executor };
  };
  root.radiograd = { terms };
  return root.radiograd;
}
