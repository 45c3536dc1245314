"""A Sphinx extension that lets the book be written as one page, for `make pdf`.

Sphinx takes the HTML form of a node for its singlehtml builder too, but only until
some extension registers a form for singlehtml alone; sphinx-exercise does.
"""


def _share(app) -> None:
    forms = app.registry.translation_handlers
    forms["singlehtml"] = forms["html"] | forms.get("singlehtml", {})


def setup(app):
    """Register the extension."""
    app.connect("builder-inited", _share)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
