"""A Sphinx extension for figures that compute in the page.

A figure with the class `live-NAME` is replaced in the browser by what
`_static/live/NAME.js` draws. Pages that have one get its scripts, from the book's own
folder; all others load nothing. What is written in the page, a picture and its
caption, is what is seen without JavaScript.
"""

from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError

FOLDER = Path(__file__).resolve().parent.parent / "_static" / "live"
PREFIX = "live-"


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
    data = [f"{name}_data" for name in names if (FOLDER / f"{name}_data.js").exists()]
    for script in ("live", *data, *names):
        app.add_js_file(f"live/{script}.js", loading_method="defer")


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
