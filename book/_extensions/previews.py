"""A Sphinx extension for links to the pages: what others show of a page.

A search engine shows the description of a page, a messenger its Open Graph preview:
title, first paragraph and a picture. A picture needs the whole address, so it is
named where the book has one (`html_baseurl`).
"""

import re
from html import escape

from docutils import nodes

LENGTH = 300  # characters of a description at most; what shows it may cut it
SENTENCE_END = re.compile(r"(?<=[.!?]) ")
PICTURE = "_static/verdict.png"


def own_description(doctree) -> str:
    """Return what a page says of itself by `html_meta`; Sphinx writes that tag."""
    tags = doctree.findall(nodes.meta)
    said = [tag["content"] for tag in tags if tag.get("name") == "description"]
    return "".join(said)


def description(doctree) -> str:
    """Return the first sentences of a page, outside boxes, as one line."""
    text = ""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section) and len(text) < LENGTH / 2:
            text = f"{text} {' '.join(paragraph.astext().split())}".strip()
    if len(text) <= LENGTH:
        return text
    whole = ""
    for sentence in SENTENCE_END.split(text):
        if len(whole) + len(sentence) >= LENGTH:
            break
        whole = f"{whole} {sentence}".strip()
    return whole or text[:LENGTH].rsplit(" ", 1)[0].rstrip(",;:.") + " …"


def _describe(app, pagename, templatename, context, doctree) -> None:
    if doctree is None:
        return
    own = own_description(doctree)
    said = own or description(doctree)
    properties = {
        "og:title": re.sub("<[^>]*>", "", context.get("title", "")),
        "og:description": said,
        "og:site_name": app.config.html_title or app.config.project,
        "og:type": "article",
    }
    if app.config.html_baseurl:
        base = app.config.html_baseurl.rstrip("/")
        properties["og:url"] = f"{base}/{app.builder.get_target_uri(pagename)}"
        properties["og:image"] = f"{base}/{PICTURE}"
    tags = []
    if said and not own:
        tags = [f'<meta name="description" content="{escape(said)}" />']
    for name, content in properties.items():
        if content:
            tags.append(f'<meta property="{name}" content="{escape(content)}" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
