// Elements, and the small controls that the view is made of.

let ids = 0;
const newId = () => `rgx-${(ids += 1)}`;

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

// A heading, one level below that which the view itself has on its page.
const heading = (E, level, attributes, ...children) =>
  el(`h${Math.min(6, level + E.level - 1)}`, { class: `h${level}`, ...attributes }, ...children);

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

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
function numberField(text, value, [least, most], change) {
  const input = el("input", { type: "number", min: least, max: most, value,
    onchange: () => { input.value = Math.max(least, Math.min(most, Math.round(Number(input.value) || 0))); change(Number(input.value)); } });
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
