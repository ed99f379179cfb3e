#!/usr/bin/env python3
"""Opens explain pages in headless Chromium as a reader does: at desktop and phone width, light and dark, each kind of panel.

    scripts/look_at_explain.py PAGE... [--out FOLDER] [--chromium PROGRAM] [--quick] [--axe FILE]

Finds: messages on the console, requests, sideways scrolling, low contrast, controls without a name, pages above 5 MB; and that the
sums which the page steps through are the executor's values, to rounding, for pixels and weights spread over every stepped
convolution; that everything that can lie over the image does, and that the keyboard keeps its place. With --axe, where FILE is axe.min.js of the npm package axe-core (web/test/node_modules has it after scripts/lab_test.sh),
also what axe-core calls serious or critical, in every panel. Keeps pictures to be looked at. Exit status 1 where something is wrong.
"""

import json
import pathlib

from pages import CHECK, LOOKS, arguments, go, heard, picture, visit

LIMIT = 5_000_000

# Opens one layer of each kind and each of its tabs in turn; says what was opened, or null at the end.
NEXT = r"""
(() => {
  const state = (window.looked = window.looked || { seen: new Set(), at: -1, tab: 0 });
  const layers = [...document.querySelectorAll('button.layer')];
  for (;;) {
    const tabs = state.at < 0 ? [] : [...document.querySelectorAll('[role=tab]')];
    if (state.tab < tabs.length) {
      const tab = tabs[state.tab++];
      tab.click();
      return `${state.name}-${tab.textContent.toLowerCase().replace(/ /g, '-')}`;
    }
    do state.at += 1; while (state.at < layers.length && state.seen.has(layers[state.at].className));
    if (state.at >= layers.length) return null;
    state.seen.add(layers[state.at].className);
    layers[state.at].click();
    state.name = layers[state.at].querySelector('.layer-name').textContent;
    state.tab = 0;
  }
})()
"""

NAMES = r"""
JSON.stringify([...document.querySelectorAll('button, select, input, canvas[tabindex], [role=img]')]
  .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden=true]'))
  .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.id && document.querySelector(`label[for="${e.id}"]`))))
  .map((e) => e.outerHTML.slice(0, 120)).slice(0, 5))
"""

# The largest difference between the page's sums and the executor's values, by the size of what was added up; of a page made on a GPU, where
# kernels that transform whole tiles leave rounding even where there is nothing to add, by the largest of its layer.
SUMS = r"""
(() => {
  const data = JSON.parse(document.getElementById('explain-data').textContent), all = data.compare || [data];
  const api = document.getElementById('explain').radiograd;
  let worst = 0, count = 0, where = '';
  const sums = {};
  const check = (network, layer, mode, at) => {
    const run = api.terms(network, layer, mode, at);
    const size = run.terms.reduce((s, [a, b]) => s + Math.abs(a * b), 0) + Math.abs(run.executor);
    (sums[`${network} ${layer} ${mode}`] ??= []).push({ size, sum: run.sum, executor: run.executor, at, cpu: /^CPU/.test(all[network].device) });
  };
  all.forEach((E, network) => E.layers.forEach((l, layer) => {
    const t = l.stepped;
    if (!t) return;
    const [kh, kw] = t.kernel;
    const spread = (n, first = 0) => [...new Set([0, n >> 1, n - 1])].map((v) => first + v);
    const rows = (area) => spread(area.size[0], area.start[0]), columns = (area) => spread(area.size[1], area.start[1]);
    for (const place of spread(t.outputs.length)) for (const i of rows(t.y_area)) for (const j of columns(t.y_area)) check(network, layer, 'forward', { place, i, j });
    for (const place of spread(t.inputs.length)) for (const i of rows(t.dx_area)) for (const j of columns(t.dx_area)) check(network, layer, 'input', { place, i, j });
    // Weights need whole channels.
    const part = (area, [, h, w]) => area.size[0] < h || area.size[1] < w;
    if ((part(t.x_area, t.x_shape) && !t.x_planes) || (part(t.dy_area, t.y_shape) && !t.dy_planes)) return;
    for (const place of spread(t.outputs.length)) for (const input of spread(t.inputs.length)) for (const k of spread(kh)) for (const l of spread(kw))
      if (t.groups === 1) check(network, layer, 'weight', { place, input, k, l });
  }));
  for (const [name, all] of Object.entries(sums)) {
    const least = (all[0].cpu ? 0 : 1) * Math.max(...all.map((s) => s.size));
    for (const { size, sum, executor, at } of all) {
      const error = Math.abs(sum - executor) / (Math.max(size, least) || 1);
      count += 1;
      if (!(error <= worst)) { worst = error; where = `${name} ${JSON.stringify(at)}: ${sum} and ${executor}`; }
    }
  }
  return JSON.stringify({ worst, count, where });
})()
"""

# Every choice of what lies over the image and at which layer; an error lands on the console.
OVERLAYS = r"""
(() => {
  for (const button of document.querySelectorAll('[aria-label="What lies over the X-ray"] button')) {
    button.click();
    for (const select of document.querySelectorAll('.answer select')) for (let k = 0; k < select.options.length; k++) {
      select.selectedIndex = k;
      select.dispatchEvent(new Event('change'));
    }
  }
})()
"""

# What is changed under the keyboard and must not lose its focus: opens a stepped convolution and answers where it did.
KEYS = r"""
(() => {
  const faults = [], at = (text, root = document) => [...root.querySelectorAll('button')].find((b) => b.textContent === text);
  const stays = (what, label, act) => { act(); const now = document.activeElement.getAttribute('aria-label') || ''; if (!now.startsWith(label)) faults.push(`${what}: focus goes from "${label}" to "${now}"`); };
  const layer = [...document.querySelectorAll('button.layer')].find((b) => { b.click(); return at('Step through'); });
  if (!layer) return '[]';
  at('Step through').click();
  for (const mode of ['One output pixel', 'Input gradient']) {
    at(mode).click();
    const canvas = document.querySelector('.stepped canvas.pickable');
    canvas.focus();
    for (const key of ['ArrowRight', 'ArrowDown', 'ArrowLeft']) stays(`${key} in ${mode}`, canvas.getAttribute('aria-label'), () => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })));
  }
  const weight = at("One weight's gradient");
  if (weight) {
    weight.click();
    const button = [...document.querySelectorAll('.stepped .grid button')].at(-1);
    if (button) { button.focus(); stays('a weight', button.getAttribute('aria-label'), () => button.click()); }
  }
  const walk = document.querySelector('.walk button:not([disabled])');
  if (walk) {
    walk.focus();
    walk.click();
    // At the last layer the other of the two has it.
    if (!document.activeElement.closest('.walk')) faults.push(`${walk.getAttribute('aria-label')}: focus is lost`);
  }
  return JSON.stringify(faults);
})()
"""


AXE = r"""
(async () => {
  const { violations } = await axe.run();
  const serious = violations.filter((v) => ['serious', 'critical'].includes(v.impact));
  return JSON.stringify(serious.map((v) => `axe: ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target).join(' ')}`));
})()
"""


def looker(args):
    axe = args.axe and args.axe.read_text()

    def look(browser, page, width, scheme, out):
        every = not args.quick and (width, scheme) in (LOOKS[0], LOOKS[-1])
        url = visit(browser, page, width, scheme)
        if axe:
            browser.evaluate(axe + "; 0")
        faults, state = [], "opened"
        while state:
            found = json.loads(browser.evaluate(CHECK))
            found += [f"no name: {f}" for f in json.loads(browser.evaluate(NAMES))]
            if "step" in state:
                # Somewhere in the middle of the sum.
                browser.evaluate("(() => { const s = document.querySelector('.controls input'); s.value = Math.floor(s.max / 2); s.dispatchEvent(new Event('input')); })()")
            if axe and (every or state == "opened"):
                found += json.loads(browser.evaluate(AXE))
            if every or state == "opened":
                picture(browser, width, out / f"{page.stem}-{width}-{scheme}-{state.replace('/', '_')}.png")
            faults += [f"{state}: {f}" for f in found]
            state = browser.evaluate(NEXT)
        size = page.stat().st_size
        if size > LIMIT:
            faults.append(f"{size} bytes are more than {LIMIT}")
        return faults + heard(browser, url)

    return look


def sums(browser, page):
    found = json.loads(browser.evaluate(SUMS))
    print(f"    {found['count']} stepped sums, the farthest {found['worst']:.1e} from the executor's")
    faults = [] if found["worst"] < 1e-5 else [f"a sum is not the executor's: {found['where']}"]
    browser.events.clear()
    browser.evaluate(OVERLAYS)
    faults += [f"keyboard: {fault}" for fault in json.loads(browser.evaluate(KEYS))]
    return faults + heard(browser, None)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="pictures of the page as it opens only")
    parser.add_argument("--axe", type=pathlib.Path, metavar="FILE", help="axe.min.js of axe-core")
    args = parser.parse_args()
    go(args, looker(args), sums)
