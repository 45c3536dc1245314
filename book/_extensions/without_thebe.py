"""A Sphinx extension that takes Thebe's scripts off the pages.

Jupyter Book always loads sphinx-thebe, which writes its constants into every page
twice, an error in the browser, beside the address of a script on another host. This
book runs in Jupyter, Colab or Binder, not inside its pages.
"""


def _of_thebe(script) -> bool:
    body = script.attributes.get("body", "")
    return "thebe" in f"{script.filename} {body}".lower()


def _remove(app, pagename, templatename, context, doctree) -> None:
    scripts = context["script_files"]
    context["script_files"] = [s for s in scripts if not _of_thebe(s)]


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _remove, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
