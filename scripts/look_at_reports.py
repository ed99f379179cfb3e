#!/usr/bin/env python3
"""Opens report pages in headless Chromium as a person would, at desktop and phone width, light and dark, and says what is wrong.

    scripts/look_at_reports.py [--out DIR] [--chromium PROGRAM] PAGE.html...

A page is wrong when it writes to the console, asks for anything but itself, scrolls sideways, has a picture that does not show, text
of a plot that leaves the plot or lies over other text, or text with a contrast below 4.5 to 1 (WCAG 2.2, 1.4.3). Every look is
taken twice: as it opens, and with everything unfolded. Pictures of the pages go to DIR (a temporary folder where none is
named), to be looked at with one's own eyes. Exit status 1 where a page is wrong. Needs python3 and Chromium, nothing else.
"""

import json

from pages import CHECK, arguments, go, heard, picture, visit


def look(browser, page, width, scheme, out):
    tag = "-".join(page.with_suffix("").parts[-2:]).strip("/")
    url = visit(browser, page, width, scheme)
    faults = []
    for state in ("folded", "unfolded"):
        if state == "unfolded":
            browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        faults += [f"{state}: {f}" for f in json.loads(browser.evaluate(CHECK))]
        if state == "folded":
            picture(browser, width, out / f"{tag}-{width}-{scheme}.png")
    return faults + heard(browser, url)


if __name__ == "__main__":
    go(arguments(__doc__).parse_args(), look)
