"""The figures that compute in the page, alone on a small page; and their pictures: `make stills`.

A picture stands where there is no JavaScript, in Jupyter say. It is what the figure draws first.
"""

import tempfile
from pathlib import Path

LIVE = Path(__file__).resolve().parent.parent / "book" / "_static" / "live"
NAMES = sorted(p.stem for p in LIVE.glob("*.js") if p.stem != "live" and not p.stem.endswith("_data"))
STYLE = "body { margin: 16px; font: 16px/1.6 sans-serif } main { max-width: 720px } * { box-sizing: border-box }"


def write_page(folder: Path, theme: str = "light") -> str:
    """Write a page with all figures, as the book's own pages load them, and return its address."""
    names = ("live", *(script for name in NAMES for script in (f"{name}_data", name)))
    scripts = "".join(
        f'<script defer src="{(LIVE / f"{name}.js").as_uri()}"></script>'
        for name in names
        if (LIVE / f"{name}.js").exists()
    )
    figures = "".join(f'<figure id="{name}" class="live-{name}"><img alt="" src="data:,"></figure>' for name in NAMES)
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
        const kept = part.tagName === 'text' ? ['fill', 'font-size', 'font-weight'] : shape;
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


def main() -> None:
    """Write the pictures of all figures."""
    from chromium import launch
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(write_page(Path(folder)))
        for name in NAMES:
            (LIVE / f"{name}.svg").write_text(still(page, name))
        browser.close()


if __name__ == "__main__":
    main()
