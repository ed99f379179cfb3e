"""What the scripts that open pages in headless Chromium share: the browser, what is wrong with a page of any sort, and how it goes on."""

import argparse
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

LOOKS = [(width, scheme) for width in (1440, 390) for scheme in ("light", "dark")]

CHECK = r"""
(() => {
  const faults = [];
  const shown = (e) => e.checkVisibility({ checkOpacity: false });
  const label = (e) => (e.textContent || e.getAttribute('alt') || e.tagName).trim().slice(0, 50);
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) {
    const wide = [...document.querySelectorAll('body *')].filter((e) => shown(e) && !e.closest('.scroll') &&
      e.getBoundingClientRect().right > page.clientWidth + 1);
    faults.push(`scrolls sideways: ${page.scrollWidth} in ${page.clientWidth}: ${wide.slice(0, 3).map((e) => e.tagName + ' ' + label(e)).join('; ')}`);
  }
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) faults.push(`a picture does not show: ${label(image)}`);
  }
  for (const svg of document.querySelectorAll('svg.plot')) {
    if (!shown(svg)) continue;
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map((e) => [e, e.getBoundingClientRect()]);
    for (const [e, b] of texts) {
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
        faults.push(`${svg.getAttribute('aria-label')}: text leaves the plot: ${label(e)}`);
    }
    texts.forEach(([e, a], i) => texts.slice(i + 1).forEach(([f, b]) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes of text hold room above and below the letters.
      if (wide > 1 && high > 0.3 * Math.min(a.height, b.height))
        faults.push(`${svg.getAttribute('aria-label')}: text over text: ${label(e)} / ${label(f)}`);
    }));
  }
  const rgba = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const seen = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !shown(e) || e.tagName === 'title') continue;
    const style = getComputedStyle(e);
    const ink = rgba(e.closest('svg') ? style.fill : style.color), paper = ground(e);
    const [light, dark] = [luminance(ink), luminance(paper)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    const kind = `${e.tagName} ${e.getAttribute('class') || ''} ${contrast.toFixed(2)}`;
    if (contrast < 4.5 && !seen.has(kind)) { seen.add(kind); faults.push(`contrast ${contrast.toFixed(2)}: ${e.tagName} ${label(e)}`); }
  }
  return JSON.stringify(faults.slice(0, 30));
})()
"""


class Browser:
    """Chromium, spoken to through a pair of pipes: JSON messages that end in a zero byte."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp()
        pipes = [*os.pipe(), *os.pipe()]
        # Far from 3 and 4, where Chromium looks, so that putting them there overwrites nothing.
        to_read, self.to, self.back, back_write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50) for fd in pipes)
        for fd in pipes:
            os.close(fd)

        def wire():
            os.dup2(to_read, 3)
            os.dup2(back_write, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
        flags += ["--no-first-run", f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(
            [program, *flags], preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(back_write)
        self.buffer, self.number, self.events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def read(self, until):
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0, until - time.time()))[0]:
                raise TimeoutError("Chromium does not answer")
            more = os.read(self.back, 1 << 20)
            if not more:
                raise ConnectionError("Chromium has ended")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        until = time.time() + 60
        while True:
            answer = self.read(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def wait(self, method):
        until = time.time() + 60
        while all(e["method"] != method for e in self.events):
            event = self.read(until)
            if "method" in event:
                self.events.append(event)

    def evaluate(self, expression):
        """The value of an expression, of a promise what it brings."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.profile, ignore_errors=True)


def arguments(about):
    """The arguments that all of these scripts take; `about` is the script's own text."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--chromium", default=None)
    return parser


def visit(browser, page, width, scheme):
    """Opens a page as it looks to a reader; gives its address."""
    url = page.resolve().as_uri()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.call("Page.navigate", url=url)
    browser.wait("Page.loadEventFired")
    return url


def heard(browser, url):
    """What the console said since the page was opened, and what it asked for."""
    faults = []
    for event in browser.events:
        params = event["params"]
        if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            faults.append("console: " + json.dumps(params)[:600])
        if event["method"] == "Network.requestWillBeSent":
            asked = params["request"]["url"]
            if asked != url and not asked.startswith("data:"):
                faults.append(f"asks for {asked[:200]}")
    return faults


def picture(browser, width, path):
    """The whole page as a PNG."""
    height = min(browser.evaluate("document.documentElement.scrollHeight"), 16000)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(shot["data"]))


def go(args, look, after=lambda browser, page: []):
    """Looks at every page in every way, with `look(browser, page, width, scheme, out)`, and then once with `after`; both give faults.
    Ends the program, with status 1 where there are any."""
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
            size = page.stat().st_size / 1e6
            for width, scheme in LOOKS:
                faults = look(browser, page, width, scheme, out)
                wrong += bool(faults)
                print(f"{page} ({size:.2f} MB) {width} {scheme}: {'well' if not faults else f'{len(faults)} faults'}", flush=True)
                for fault in dict.fromkeys(faults):
                    print(f"    {fault}")
            faults = after(browser, page)
            wrong += bool(faults)
            for fault in faults:
                print(f"    {fault}")
    finally:
        browser.close()
    print(f"pictures: {out}")
    sys.exit(1 if wrong else 0)
