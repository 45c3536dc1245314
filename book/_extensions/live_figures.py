"""A Sphinx extension for figures that compute in the page.

A figure with the class `live-NAME` is replaced in the browser by what
`_static/live/NAME.js` draws. Pages that have one get its scripts, from the book's own
folder; all others load nothing. What is written in the page, a picture and its
caption, is what is seen without JavaScript.

The results that chapter 6's explorer shows are written by every build, from the
runs that are there.
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "_static" / "live"
BENCHMARKS = ROOT / "tests" / "benchmarks"
PREFIX = "live-"
WITH_DATA = "grid"


def _names(doctree) -> list[str]:
    figures = doctree.findall(nodes.figure)
    classes = {name for figure in figures for name in figure["classes"]}
    return sorted(c.removeprefix(PREFIX) for c in classes if c.startswith(PREFIX))


def _add_scripts(app, pagename, templatename, context, doctree) -> None:
    names = _names(doctree) if doctree is not None else []
    if not names:
        return
    for name in names:
        if not (FOLDER / f"{name}.js").exists():
            raise ExtensionError(
                f"{pagename}: no {name}.js in {FOLDER.name} for a figure"
            )
    app.add_css_file("live/live.css")
    data = [f"{WITH_DATA}_data"] if WITH_DATA in names else []
    for script in ("live", *data, *names):
        app.add_js_file(f"live/{script}.js", loading_method="defer")


def _write_data(app) -> None:
    if app.builder.format != "html":
        return
    sys.path.insert(0, str(BENCHMARKS))
    import benefit_analysis
    import benefit_explorer

    folder = Path(app.outdir) / "_static" / "live"
    folder.mkdir(parents=True, exist_ok=True)
    script = benefit_explorer.script(benefit_analysis.Results())
    (folder / f"{WITH_DATA}_data.js").write_text(script, encoding="utf-8")


def setup(app):
    """Register the extension."""
    app.connect("builder-inited", _write_data)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
