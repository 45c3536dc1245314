"""A Sphinx extension that stacks the rows of broad tables on a phone.

A table of words that a phone cannot show would scroll, and the numbers that stand in
its rows would be out of sight. Such a table gets the class that tables of results have:
on a phone the first cell of a row has the width, and the others stand below it, each
behind the name of its column, which is in the page and is hidden elsewhere.
"""

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

LETTERS = 30  # that fit a phone, where each column is as wide as its longest word
FORMULA = "x" * 5  # about as wide as a symbol with an index


def _longest_word(entry) -> int:
    words = []
    for part in entry.findall(nodes.Text):
        if isinstance(part.parent, nodes.math):
            words.append(FORMULA)
        elif not isinstance(part.parent, nodes.raw):  # what is drawn, not said
            words += part.split()
    return max(map(len, words), default=0)


def _is_broad(rows) -> bool:
    """Whether the columns, each as wide as its longest word, are wider than a phone."""
    columns = zip(*(row.children for row in rows), strict=True)
    return sum(2 + max(map(_longest_word, column)) for column in columns) > LETTERS


class StackBroadTables(SphinxPostTransform):
    """Put the name of its column into each cell of a table that is too broad."""

    default_priority = 490  # before typography.py, which looks at all formulas
    formats = ("html",)

    def run(self, **kwargs):
        """Look at every table that is written in Markdown."""
        for table in self.document.findall(nodes.table):
            rows = list(table.findall(nodes.row))
            if not any(table.findall(nodes.thead)) or not _is_broad(rows):
                continue
            table["classes"].append("stacked")
            heads = rows[0].children
            for row in rows[1:]:
                if not "".join(entry.astext() for entry in row.children[1:]).strip():
                    row.children[0]["classes"].append("group")
                for head, entry in list(zip(heads, row.children, strict=True))[1:]:
                    if not entry.astext().strip():
                        entry["classes"].append("dash")
                    elif head.astext().strip():
                        name = nodes.inline("", "", classes=["column-name"])
                        name += [part.deepcopy() for part in head.children[0].children]
                        name += nodes.Text(": ")
                        entry.children[0].insert(0, name)


def setup(app):
    """Register the extension."""
    app.add_post_transform(StackBroadTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
