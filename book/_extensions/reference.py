"""A Sphinx extension for the reference: its index, and links between it and chapters.

`{reference-index}` lists what the pages below it document, in one line each, and the
chapters whose code uses it. Names in a chapter's text, or among recipes, lead to the
reference, the first time on each page; and "chapter 4" leads to that chapter, wherever
it is written.
"""

import json
import re
import sys

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

KINDS = ("function", "class", "exception", "data")
SPOKEN = re.compile(r"\b[Cc]hapters?\s+\d+(?:(?:,\s+|\s+and\s+|,\s+and\s+)\d+)*")
RECIPES = ("book/using", "book/when_it_does_not_learn")
OPAQUE = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.raw)


class reference_index(nodes.General, nodes.Element):
    """Where the index of names goes."""


class ReferenceIndex(SphinxDirective):
    """The directive."""

    def run(self):
        """Return a place for the index, which is filled when all pages are read."""
        return [reference_index(page=self.env.docname)]


def _chapters(env) -> list[str]:
    """Return the names of the chapters, by their number."""
    numbered = {
        numbers[""][0]: name
        for name, numbers in env.toc_secnumbers.items()
        if numbers.get("") and isinstance(numbers[""][0], int)  # others have a letter
    }
    return [numbered[number] for number in sorted(numbered)]


def _public(env, pages) -> dict[str, list[tuple[str, str]]]:
    """Return the full names that each page documents, with their anchors."""
    found = {page: [] for page in pages}
    for name, entry in env.get_domain("py").objects.items():
        if entry.docname in found and entry.objtype in KINDS and not entry.aliased:
            found[entry.docname].append((name, entry.node_id))
    return found


def _sources(env) -> dict[str, str]:
    """Return the code of each chapter."""
    code = {}
    for name in _chapters(env):
        with open(env.doc2path(name), encoding="utf-8") as file:
            cells = json.load(file)["cells"]
        code[name] = "\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] == "code"
        )
    return code


def uses(code: str, name: str) -> bool:
    """Return whether code uses a name: of `sp`, of a module on its path, imported."""
    *modules, last = name.split(".")
    prefix = rf"(?:sp|{'|'.join(modules)})"
    imported = rf"from snnparams\S* import (?:\([^)]*|[^\n]*)\b{last}\b"
    return bool(re.search(rf"\b{prefix}\.{last}\b|{imported}", code))


def _link(
    app, source: str, target: str, anchor: str, child: nodes.Node
) -> nodes.reference:
    uri = app.builder.get_relative_uri(source, target)
    return nodes.reference(
        "", "", child, internal=True, refuri=f"{uri}#{anchor}" if anchor else uri
    )


def _inline(text: str) -> list[nodes.Node]:
    """Return one line of a docstring, with its code as code."""
    parts = re.split(r"`+([^`]+)`+", text)
    made = [
        nodes.literal("", part) if k % 2 else nodes.Text(part)
        for k, part in enumerate(parts)
    ]
    return [part for part in made if part.astext()]


def _name(name: str) -> nodes.literal:
    """Return a name as code, which may be broken behind its dots."""
    *modules, last = name.split(".")
    code = nodes.literal()
    for module in modules:
        code += [nodes.Text(f"{module}."), nodes.raw("", "<wbr>", format="html")]
    code += nodes.Text(last)
    return code


def _row(*cells: list[nodes.Node]) -> nodes.row:
    return nodes.row(
        "", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells]
    )


def _table(
    app, docname: str, names: list[tuple[str, str]], page: str, code: dict[str, str]
):
    rows = []
    for name, anchor in names:
        short = (
            name.removeprefix("snnparams.")
            if not _exported(name)
            else name.rpartition(".")[2]
        )
        chapters = []
        for number, (chapter, text) in enumerate(code.items(), start=1):
            if uses(text, name):
                chapters += [nodes.Text(", ")] * bool(chapters)
                chapters.append(
                    _link(app, docname, chapter, "", nodes.Text(str(number)))
                )
        link = _link(app, docname, page, anchor, _name(short))
        rows.append(
            _row([link], _inline(app.env.reference_summaries.get(name, "")), chapters)
        )
    widths = (30, 60, 10)
    group = nodes.tgroup(
        "", *[nodes.colspec(colwidth=width) for width in widths], cols=3
    )
    head = _row(*[[nodes.Text(text)] for text in ("name", "what it is", "chapters")])
    group += [nodes.thead("", head), nodes.tbody("", *rows)]
    return nodes.table("", group, classes=["reference-index"])


def _exported(name: str) -> bool:
    """Return whether `snnparams` has this very object: another may have its name."""
    import snnparams

    module, _, last = name.rpartition(".")
    documented = getattr(sys.modules.get(module), last, None)
    return last in snnparams.__all__ and getattr(snnparams, last) is documented


def _fill(app, doctree, docname: str) -> None:
    """Put the index in its place."""
    env = app.env
    for place in list(doctree.findall(reference_index)):
        pages = env.toctree_includes.get(place["page"], [])  # in print all is one page
        public, code, sections = _public(env, pages), _sources(env), []
        contents = nodes.bullet_list(classes=["index-contents"])
        for page in pages:
            title = env.titles[page].astext()
            heading = nodes.title(
                "", "", _link(app, docname, page, "", nodes.Text(title))
            )
            anchor = f"index-{page.rpartition('/')[2]}"
            section = nodes.section("", heading, ids=[anchor])
            exported = [entry for entry in public[page] if _exported(entry[0])]
            others = [entry for entry in public[page] if not _exported(entry[0])]
            if exported:
                section += _table(app, docname, exported, page, code)
            if exported and others:
                section += nodes.paragraph("", "In modules of their own:")
            if others:
                section += _table(app, docname, others, page, code)
            sections.append(section)
            link = nodes.reference("", title, internal=True, refid=anchor)
            count = nodes.Text(f" ({len(public[page])} names)")
            item = nodes.list_item("", nodes.paragraph("", "", link, count))
            contents += item
        place.replace_self([contents, *sections])


def _link_chapters(app, doctree, docname: str) -> None:
    """Turn "chapter 4" into a link, outside code, titles and other links."""
    chapters = _chapters(app.env)
    for text in list(doctree.findall(nodes.Text)):
        if _inside(text, OPAQUE) or not SPOKEN.search(text):
            continue
        pieces, at = [], 0
        for spoken in SPOKEN.finditer(text):
            for number in re.finditer(r"\d+", spoken[0]):
                if not 1 <= int(number[0]) <= len(chapters):
                    continue
                chapter = chapters[int(number[0]) - 1]
                start, end = (
                    spoken.start() + number.start(),
                    spoken.start() + number.end(),
                )
                one = (
                    number.start() == re.search(r"\d", spoken[0]).start()
                    and "s" not in spoken[0].split()[0]
                )
                start = (
                    spoken.start() if one else start
                )  # "chapter 4", but "4" in "chapters 1 and 4"
                if chapter != docname:
                    link = _link(app, docname, chapter, "", nodes.Text(text[start:end]))
                    pieces += [nodes.Text(text[at:start]), link]
                    at = end
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[at:])])


def _inside(node: nodes.Node, kinds: tuple) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _link_names(app, doctree, docname: str) -> None:
    """Turn the first mention of a public name on a page into a link."""
    if docname not in (*_chapters(app.env), *RECIPES):
        return
    known = {}
    for name, entry in app.env.get_domain("py").objects.items():
        if entry.objtype in KINDS and not entry.aliased:
            known.setdefault(name.rpartition(".")[2], (name, entry))
    seen = set()
    for literal in list(doctree.findall(nodes.literal)):
        spoken = re.fullmatch(
            r"(?:(sp|snnparams)\.)?(?:\w+\.)*(\w+)(?:\(.*\))?", literal.astext()
        )
        if (
            not spoken
            or spoken[2] not in known
            or spoken[2] in seen
            or _inside(literal, OPAQUE)
        ):
            continue
        name, entry = known[spoken[2]]
        distinct = (
            spoken[1] or spoken[2][0].isupper() or "_" in spoken[2]
        )  # not `log`, not `run`
        if distinct and (spoken[1] or _exported(name)):
            seen.add(spoken[2])
            link = _link(app, docname, entry.docname, entry.node_id, literal.deepcopy())
            literal.replace_self(link)


def summary(lines: list[str]) -> str:
    """Return the first sentence of a docstring, without a formula at its end."""
    first = " ".join(" ".join(lines).partition("  ")[0].split())
    first = re.split(r"(?<=[a-z)\]`])\.(?:\s|$)", first)[0]
    if ":math:" in first:
        first = re.split(r"[:,;](?=[^:,;]*:math:)", first)[0]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", first).rstrip(" .:") + "."


def _remember(app, what, name, obj, options, lines) -> None:
    """Keep the summary of a docstring for the index."""
    if what in KINDS:
        if not hasattr(app.env, "reference_summaries"):
            app.env.reference_summaries = {}
        app.env.reference_summaries[name] = summary(lines)


def _resolve(app, doctree, docname: str) -> None:
    _fill(app, doctree, docname)
    _link_names(app, doctree, docname)
    _link_chapters(app, doctree, docname)


def _again(app, env) -> list[str]:
    """Write the index again whenever any page was read again."""
    return [name for name in env.found_docs if name == "book/api"]


def setup(app):
    """Register the extension."""
    app.add_node(reference_index)
    app.add_directive("reference-index", ReferenceIndex)
    app.connect("autodoc-process-docstring", _remember)
    app.connect("env-updated", _again)
    app.connect("doctree-resolved", _resolve)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
