// The view of an Explanation (src/explain/view.rs): radiogradExplain(root, data) fills `root`, which becomes an element of class "rgx".
//
// `data` is the JSON of an Explanation as an object, or { compare: [Explanation, ...] } for several networks on one image. What the
// view shows is in `data`; it asks for nothing. As a part of another page `root` has `data-level`, the level of its first heading; then
// it takes the colours that the reader's system asks for, and leaves the choice of them out.
//
// Gives `root.radiograd`: `terms(network, layer, mode, place)` has the terms of a stepped convolution with their sum and the executor's
// value, for scripts that check them.
function radiogradExplain(root, data) {
  const level = Number(root.dataset.level || 1);
  const all = (data.compare || [data]).map((E) => prepare(E, level)), first = all[0];
  const themes = [["auto", "auto"], ["light", "light"], ["dark", "dark"]];
  const theme = level > 1 ? null : choice("Colours of the page", themes, "auto", (v) => { if (v === "auto") delete root.dataset.theme; else root.dataset.theme = v; });
  const short = (E) => (E.model.text.length > 40 ? "the network" : E.model.text);
  const verdict = all.length === 1
    ? `${className(first, first.decision)}, ${percent(first.probabilities[first.decision])}`
    : all.map((E) => `${E.model.text}: ${className(E, E.decision)} ${percent(E.probabilities[E.decision])}`).join(" \u00b7 ");
  const notice = root.dataset.notice || "This is software for study. It is not a medical device, and nothing here may be used to diagnose or treat anyone.";
  const head = el("header", {},
    el("div", { class: "top" }, heading(first, 1, { text: all.length === 1 ? `What ${short(first)} sees` : "What the networks see" }), theme),
    el("p", { class: "subtitle", text: `${first.image.name}: ${verdict}` }),
    el("p", { class: "notice", role: "note", text: notice }));
  const content = el("div", {});
  if (all.length === 1) fill(content, first);
  else {
    const holder = el("div", {});
    const pick = choice("Network", all.map((E, k) => [k, `${k + 1}: ${E.model.text.slice(0, 30)}`]), 0, (k) => fill(holder, all[k]));
    fill(holder, first);
    content.append(comparePart(all), el("section", { class: "part" }, heading(first, 2, { text: "One network in full" }), pick), holder);
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

// The parts about one network, in order.
function* whole(E) {
  yield answerPart(E);
  const network = networkPart(E);
  yield network;
  yield pathPart(E, (layer, tab) => { network.open(layer, tab); network.scrollIntoView({ block: "start" }); });
  yield notesPart(E);
}

// Fills an element with them: at once, or as a part of another page one after another, so that it stays free between them.
function fill(holder, E) {
  const parts = whole(E);
  holder.replaceChildren();
  const next = () => {
    const { value, done } = parts.next();
    if (value) holder.append(value);
    if (done) return;
    if (E.level > 1) setTimeout(next);
    else next();
  };
  next();
}
