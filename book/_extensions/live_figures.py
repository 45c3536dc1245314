"""A Sphinx extension for figures that compute in the page.

A figure with the class `live-NAME` is replaced in the browser by what `_static/live/NAME.js` draws. Pages that have one
get its scripts, from the book's own folder; all others load nothing. What is written in the page, a picture and
its caption, is what is seen without JavaScript.
"""

from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError

FOLDER = Path(__file__).resolve().parent.parent / "_static" / "live"


def _names(doctree) -> list[str]:
    classes = (name for node in doctree.findall(nodes.figure) for name in node["classes"])
    return sorted({name.removeprefix("live-") for name in classes if name.startswith("live-")})


def _add_scripts(app, pagename, templatename, context, doctree) -> None:
    names = _names(doctree) if doctree is not None else []
    if not names:
        return
    app.add_css_file("live/live.css")
    for script in ("live", *(part for name in names for part in (f"{name}_data", name))):
        if (FOLDER / f"{script}.js").exists():
            app.add_js_file(f"live/{script}.js", loading_method="defer")
        elif not script.endswith("_data"):
            raise ExtensionError(f"{pagename}: expected a figure of book/_static/live, got the class live-{script}")


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
