#!/usr/bin/env python3
"""Opens explain pages in headless Chromium as a reader does: at desktop and phone width, light and dark, each kind of panel.

    scripts/look_at_explain.py PAGE... [--out FOLDER] [--chromium PROGRAM] [--quick]

Finds: messages on the console, requests, sideways scrolling, low contrast, controls without a name, pages above 5 MB; and that the
sums which the page steps through are the executor's values, to rounding, for pixels and weights spread over every stepped
convolution. Keeps pictures to be looked at. Exit status 1 where something is wrong.
"""

import argparse
import base64
import json
import pathlib
import shutil
import sys
import tempfile

from look_at_reports import CHECK, LOOKS, Browser

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

# The largest difference between the page's sums and the executor's values, by the size of what was added up.
SUMS = r"""
(() => {
  const data = JSON.parse(document.getElementById('explain-data').textContent), all = data.compare || [data];
  const api = document.getElementById('explain').radiograd;
  let worst = 0, count = 0, where = '';
  const check = (network, layer, mode, at) => {
    const run = api.terms(network, layer, mode, at);
    const size = run.terms.reduce((s, [a, b]) => s + Math.abs(a * b), 0) + Math.abs(run.executor);
    const error = Math.abs(run.sum - run.executor) / (size || 1);
    count += 1;
    if (!(error <= worst)) { worst = error; where = `${layer} ${mode} ${JSON.stringify(at)}: ${run.sum} and ${run.executor}`; }
  };
  all.forEach((E, network) => E.layers.forEach((l, layer) => {
    const t = l.stepped;
    if (!t) return;
    const [, H, W] = t.x_shape, [, OH, OW] = t.y_shape, [kh, kw] = t.kernel;
    const spread = (n) => [...new Set([0, n >> 1, n - 1])];
    for (const place of spread(t.outputs.length)) for (const i of spread(OH)) for (const j of spread(OW)) check(network, layer, 'forward', { place, i, j });
    if (t.dy_whole) for (const place of spread(t.inputs.length)) for (const i of spread(H)) for (const j of spread(W)) check(network, layer, 'input', { place, i, j });
    for (const place of spread(t.outputs.length)) for (const input of spread(t.inputs.length)) for (const k of spread(kh)) for (const l of spread(kw))
      if (t.groups === 1) check(network, layer, 'weight', { place, input, k, l });
  }));
  return JSON.stringify({ worst, count, where });
})()
"""


def picture(browser, width, path):
    height = min(browser.evaluate("document.documentElement.scrollHeight"), 16000)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(shot["data"]))


def look(browser, page, width, scheme, out, tag, every):
    url = page.resolve().as_uri()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.call("Page.navigate", url=url)
    browser.wait("Page.loadEventFired")
    faults, state = [], "opened"
    while state:
        faults += [f"{state}: {f}" for f in json.loads(browser.evaluate(CHECK))]
        faults += [f"{state}: no name: {f}" for f in json.loads(browser.evaluate(NAMES))]
        if "step" in state:
            # Somewhere in the middle of the sum.
            browser.evaluate("(() => { const s = document.querySelector('.controls input'); s.value = Math.floor(s.max / 2); s.dispatchEvent(new Event('input')); })()")
        if every or state == "opened":
            picture(browser, width, out / f"{tag}-{width}-{scheme}-{state.replace('/', '_')}.png")
        state = browser.evaluate(NEXT)
    for event in browser.events:
        params = event["params"]
        if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            faults.append("console: " + json.dumps(params)[:600])
        if event["method"] == "Network.requestWillBeSent" and params["request"]["url"] != url:
            faults.append(f"asks for {params['request']['url'][:200]}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--chromium", default=None)
    parser.add_argument("--quick", action="store_true", help="pictures of the page as it opens only")
    args = parser.parse_args()
    names = ("chromium", "chromium-browser", "google-chrome")
    program = args.chromium or next((p for p in map(shutil.which, names) if p), None)
    if not program:
        sys.exit("error: no Chromium; install it, or name the program with --chromium")
    for page in args.pages:
        if not page.is_file():
            sys.exit(f"error: {page}: no such page")
    out = args.out or pathlib.Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    browser = Browser(program)
    wrong = 0
    try:
        for page in args.pages:
            size = page.stat().st_size
            for width, scheme in LOOKS:
                every = not args.quick and (width, scheme) in (LOOKS[0], LOOKS[-1])
                faults = look(browser, page, width, scheme, out, page.stem, every)
                if size > LIMIT:
                    faults.append(f"{size} bytes are more than {LIMIT}")
                wrong += bool(faults)
                print(f"{page} ({size / 1e6:.2f} MB) {width} {scheme}: {'well' if not faults else f'{len(faults)} faults'}")
                for fault in dict.fromkeys(faults):
                    print(f"    {fault}")
            sums = json.loads(browser.evaluate(SUMS))
            right = sums["worst"] < 1e-5
            wrong += not right
            print(f"    {sums['count']} stepped sums, the farthest {sums['worst']:.1e} from the executor's{'' if right else ': ' + sums['where']}")
    finally:
        browser.close()
    print(f"pictures: {out}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
