"""The figures that compute in the page, alone on a small page; their pictures, and how long a frame takes.

`make stills` draws the pictures. One stands where there is no JavaScript, in Jupyter say: it is what the figure draws
first. `python tests/live_figures.py --timings` measures and writes book/results/live_figures.json.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
import benefit_analysis
import benefit_explorer
import benefit_store
import stored

LIVE = Path(__file__).resolve().parent.parent / "book" / "_static" / "live"
RESULTS = LIVE.parents[1] / "results" / "live_figures.json"
NAMES = sorted(p.stem for p in LIVE.glob("*.js") if p.stem != "live")
FONT = "font: 16px/1.6 DejaVu Sans, sans-serif"
STYLE = f"* {{ box-sizing: border-box }} body {{ margin: 24px; {FONT} }} main {{ max-width: 720px }}"


def write_page(folder: Path, theme: str = "light") -> str:
    """Write a page with all figures, as the book's own pages load them, and return its address."""
    data = folder / "grid_data.js"
    data.write_text(benefit_explorer.script(benefit_analysis.Results()))
    paths = (LIVE / "live.js", data, *(LIVE / f"{name}.js" for name in NAMES))
    scripts = "".join(f'<script defer src="{path.as_uri()}"></script>' for path in paths)
    pictures = {name: (LIVE / f"{name}.svg").as_uri() for name in NAMES}
    figures = "".join(f'<figure id="{n}" class="live-{n}"><img alt="" src="{x}"></figure>' for n, x in pictures.items())
    style = f'<link rel="stylesheet" href="{(LIVE / "live.css").as_uri()}"><style>{STYLE}</style>'
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Figures</title>{style}'
    path = folder / "figures.html"
    path.write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><head>{head}{scripts}</head>'
        f"<body><main>{figures}</main></body></html>"
    )
    return path.as_uri()


STILL = """name => {  // the drawing, with what the style sheet says of each part
    const drawing = document.querySelector(`#${name} svg`), copy = drawing.cloneNode(true);
    const [from, to] = [drawing, copy].map(root => [...root.querySelectorAll('path, circle, rect, text')]);
    const shape = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'fill-opacity'];
    from.forEach((part, k) => {
        const style = getComputedStyle(part);
        const kept = part.tagName === 'text' ? ['fill', 'font-size', 'font-weight', 'text-anchor'] : shape;
        to[k].setAttribute('style', kept.map(x => `${x}:${style.getPropertyValue(x)}`).join(';'));
        to[k].removeAttribute('class');
    });
    const [, , width, height] = copy.getAttribute('viewBox').split(' ');
    for (const x of ['role', 'aria-label', 'aria-describedby']) copy.removeAttribute(x);
    const size = { width, height, 'font-family': 'sans-serif' };
    for (const x in size) copy.setAttribute(x, size[x]);
    return `${new XMLSerializer().serializeToString(copy)}\n`;
}"""


def still(page, name: str) -> str:
    """Return a figure of an open page as an SVG picture that needs no style sheet."""
    return page.evaluate(STILL, name)


TIMED = """name => new Promise(resolve => {  // move each slider to its end and back, and time each frame
    const place = document.getElementById(name), {figure} = place, {frame} = figure, took = [];
    figure.frame = (...most) => {
        const start = performance.now();
        frame.apply(figure, most);
        took.push(performance.now() - start);
    };
    const sliders = [...place.querySelectorAll('input[type=range]')];
    const places = sliders.flatMap(slider => [1, 0.2].map(share => [slider, share]));
    const next = () => {
        if (figure.busy) return requestAnimationFrame(next);
        if (!places.length) { figure.frame = frame; return resolve(took) }
        const [slider, share] = places.shift();
        slider.value = Number(slider.min) + share * (slider.max - slider.min);
        slider.dispatchEvent(new Event('input'));
        requestAnimationFrame(next);
    };
    next();
})"""
SLOWED = {"as it is": 1, "slowed down four times": 4}  # the second by the browser, to stand for a phone
ROUNDS = 2


def timings(browser, address: str) -> dict:
    """Return how many ms a frame takes, computing and drawing, of all figures in turns: median and 95 % quantile."""
    took: dict[str, dict[str, list]] = {speed: {name: [] for name in NAMES} for speed in SLOWED}
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    session = page.context.new_cdp_session(page)
    for _ in range(ROUNDS):
        for speed, rate in SLOWED.items():
            session.send("Emulation.setCPUThrottlingRate", {"rate": rate})
            for name in NAMES:
                took[speed][name] += page.evaluate(TIMED, name)
    page.close()
    shares = {"median": 0.5, "95 %": 0.95}
    found = {
        speed: {
            name: {title: round(float(np.quantile(ms, share)), 1) for title, share in shares.items()}
            | {"frames": len(ms)}
            for name, ms in of_speed.items()
        }
        for speed, of_speed in took.items()
    }
    made = {"command": "python tests/live_figures.py --timings", **stored.header_of_device(benefit_store.processor())}
    made["versions"]["chromium"] = browser.version
    return made | {"ms per frame": found}


def main() -> None:
    """Write the pictures of all figures, or how long a frame takes."""
    from chromium import launch
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timings", action="store_true", help=f"measure, and write {RESULTS.name}")
    measure = parser.parse_args().timings
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = launch(playwright)
        address = write_page(Path(folder))
        if measure:
            stored.write(RESULTS, timings(browser, address))
        else:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            for name in NAMES:
                (LIVE / f"{name}.svg").write_text(still(page, name))
        browser.close()


if __name__ == "__main__":
    main()
