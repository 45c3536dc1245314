"""A Sphinx extension for what belongs together on a line, and for numbers.

For a browser a formula in a line of text is a picture, beside which the line may break:
it keeps its punctuation mark, and a number keeps its unit. A notebook behind the
chapters has a letter in place of their numbers, so that its figures and exercises are
told apart from theirs. And the theme prints titles of its own, without the numbers of
the chapters: they get them.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

APPENDICES = {"book/when_it_does_not_learn": "A", "book/fair_comparison": "B"}
AFTER = re.compile(r"[.,;:!?)\]\u2019\u201d]+")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|kB|MB|KiB|MiB)(?!\w))")
TIME_CONSTANT = re.compile("τ (?=(?:mem|syn|adapt)\\b)")  # in tables and figures
AS_IT_IS = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.math_block)


class KeepTogether(SphinxPostTransform):
    """Have no break between a formula and its mark, or a number and its unit."""

    default_priority = 500
    formats = ("html",)

    def run(self, **kwargs):
        """Look at every formula in a line of text, and at every number with a unit."""
        for formula in list(self.document.findall(nodes.math)):
            parent = formula.parent
            after = formula.next_node(descend=False, siblings=True, ascend=False)
            if isinstance(after, nodes.Text) and (mark := AFTER.match(after)):
                rest = nodes.Text(after[mark.end() :])
                both = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]))
                both["classes"].append("together")
                # by place: docutils would replace an equal text that stands before
                at = parent.index(formula)
                parent[at : at + 2] = [both, rest]
        for text in list(self.document.findall(nodes.Text)):
            joined = BEFORE_UNIT.sub("\u00a0", text)
            joined = TIME_CONSTANT.sub("τ\u00a0", joined)
            if joined != text and not isinstance(text.parent, AS_IT_IS):
                siblings = text.parent.children
                at = next(k for k, node in enumerate(siblings) if node is text)
                text.parent[at] = nodes.Text(joined)
        for raw in list(self.document.findall(nodes.raw)):  # tables of results
            joined = TIME_CONSTANT.sub("τ\u00a0", raw.astext())
            if raw.get("format") == "html" and joined != raw.astext():
                raw.children[:] = [nodes.Text(joined)]


def _number_appendices(app, env) -> list[str]:
    """Give a page its letter, and the same to what is numbered there."""
    for name, letter in APPENDICES.items():
        title, *sections = env.tocs[name].findall(nodes.reference)
        env.toc_secnumbers[name] = dict.fromkeys(
            (x["anchorname"] for x in sections), ()
        )
        env.toc_secnumbers[name][title["anchorname"]] = (letter,)
        env.titles[name]["secnumber"] = title["secnumber"] = [letter]
        for numbers in env.toc_fignumbers.get(name, {}).values():
            for count, anchor in enumerate(numbers, start=1):
                numbers[anchor] = (letter, count)
    return list(APPENDICES)


def _forget_letters(app, env, docnames) -> None:
    """Leave to Sphinx only numbers that it has given, when it counts again."""
    for name in APPENDICES:
        env.toc_secnumbers.pop(name, None)
        if name in env.titles:
            title = next(env.tocs[name].findall(nodes.reference))
            for node in (env.titles[name], title):
                node.attributes.pop("secnumber", None)


def _number_printed_title(app, pagename, templatename, context, doctree) -> None:
    number = app.env.toc_secnumbers.get(pagename, {}).get("")
    if number and "pagetitle" in context:
        shown = ".".join(map(str, number)) + app.config.html_secnumber_suffix
        context["pagetitle"] = shown + context["pagetitle"]


def setup(app):
    """Register the extension."""
    app.add_post_transform(KeepTogether)
    app.connect("env-before-read-docs", _forget_letters)
    app.connect("env-get-updated", _number_appendices, priority=900)  # after Sphinx
    app.connect("html-page-context", _number_printed_title, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
