"""A Sphinx extension that takes Thebe's scripts off the pages.

Jupyter Book always loads sphinx-thebe, which writes its constants into every page twice, an error in the browser, beside
the address of a script on another host. This book runs in Jupyter, Colab or Binder, not inside its pages.
"""


def _remove(app, pagename, templatename, context, doctree) -> None:
    def of_thebe(script) -> bool:
        return "thebe" in f"{script.filename} {script.attributes.get('body', '')}".lower()

    context["script_files"] = [script for script in context["script_files"] if not of_thebe(script)]


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _remove, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
