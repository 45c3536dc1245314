"""A Sphinx extension that takes off the pages what they do not need.

The theme gives every page all of Font Awesome, 1.5 MB of script and 157 kB of font,
for a dozen icons, and MathJax comes with every output format and language that it
has. The pages that come out of here carry the icons that they show, as a font of a
few kB, and MathJax where there is a formula. Figures have a palette, a third of their
size, and code no marks without a colour. They work from a folder as well.
"""

import ast
import re
import shutil
from pathlib import Path

from docutils import nodes
from fontTools import subset
from PIL import Image
from sphinx.transforms.post_transforms import SphinxPostTransform

FONT_AWESOME = Path("vendor", "fontawesome")
SCRIPT = re.compile(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>")
LABEL = ' aria-label="Toggle hidden content"'  # MyST-NB's; a fold has a name of its own
NAMELESS = '<summary><span class="toctree-toggle"'  # the theme's: a sign, no name
NAMED = NAMELESS.replace("<summary>", '<summary aria-label="Pages of this part">')
ICON = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')
FACES = {  # file: family and weight
    "fa-solid-900": ("Font Awesome 6 Free", 900),
    "fa-regular-400": ("Font Awesome 6 Free", 400),
    "fa-brands-400": ("Font Awesome 6 Brands", 400),
}
STYLE = """\
@font-face {{
  font-display: block;
  font-family: "{family}";
  font-style: normal;
  font-weight: {weight};
  src: url({name}.woff) format("woff");
}}
"""
CODE = re.compile(r"<pre>.*?</pre>", re.DOTALL)
# names and punctuation have the colour of all code, in both themes
COLOURLESS = re.compile(r'<span class="[np]">([^<]*)</span>')
DEPRECATED = ' role="doc-biblioentry"'  # of works: WAI-ARIA has given it up
PRIVATE = re.compile("[\ue000-\uf8ff]")  # where Font Awesome has its icons
# what tex-chtml.js may load by itself: itself and its fonts
MATHJAX_KEPT = ("tex-chtml.js", "output/chtml/fonts")


def _of_mathjax(script) -> bool:
    body = script.attributes.get("body", "") or ""
    return "mathjax" in str(script.filename).lower() or body.startswith(
        "window.MathJax"
    )


def _without_mathjax(app, pagename, templatename, context, doctree) -> None:
    """Take MathJax off a page that has no formula."""
    if not re.search(r'class="[^"]*\bmath\b', context.get("body", "")):
        context["script_files"] = [
            s for s in context["script_files"] if not _of_mathjax(s)
        ]


def _assigned(body) -> list[str]:
    """Return the names that statements give to what they make, in order."""
    targets = [t for part in body if isinstance(part, ast.Assign) for t in part.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _subject(cell) -> str:
    """Return what folded code is for, as far as its output or its functions tell."""
    source, output = cell.children[0], cell.children[-1]
    if output is not source:
        if any(output.findall(nodes.image)):
            return " of this figure"
        if any("<table" in raw.astext() for raw in output.findall(nodes.raw)):
            return " of this table"
    body = ast.parse(source.astext()).body
    if isinstance(body[0], ast.Import | ast.ImportFrom):
        return " that imports and sets up"
    defined = [
        part.name for part in body if isinstance(part, ast.FunctionDef | ast.ClassDef)
    ]
    if not defined:
        if re.search(r"^import ", source.astext(), re.M):
            return " that imports"
        if any(isinstance(part, ast.Assert) for part in body):
            return " that checks numbers of the text"
        defined = _assigned(body)[-1:]
    first, last = ", ".join(defined[:-1]), "".join(defined[-1:])
    return f" of {first} and {last}" if first else f" of {last}" if last else ""


class NameFolded(SphinxPostTransform):
    """Say on the fold of a cell what its code is for."""

    default_priority = 198  # before MyST-NB folds
    formats = ("html",)

    def run(self, **kwargs):
        """Name every cell of a page that is folded."""
        for cell in self.document.findall(nodes.container):
            if (
                cell.get("nb_element") == "cell_code"
                and cell.get("hide_mode") == "input"
            ):
                subject = _subject(cell)
                cell["prompt_show"], cell["prompt_hide"] = (
                    f"Show the code{subject}",
                    f"Hide the code{subject}",
                )


def _icon_names(text: str) -> set[str]:
    return set(re.findall(r"\bfa-([a-z0-9-]+)", text))


def icons(style: str, pages: str) -> set[str]:
    """Return the icons, as characters, that pages, scripts or the style show."""
    named = {}
    for selectors, code in ICON.findall(style):
        named |= dict.fromkeys(_icon_names(selectors), chr(int(code, 16)))
    own = ICON.sub("", style)
    codes = re.findall(r"\\(f[0-9a-f]{3})\b", own)
    of_style = {chr(int(code, 16)) for code in codes} | set(PRIVATE.findall(own))
    return of_style | {named[name] for name in _icon_names(pages) if name in named}


def _small_fonts(static: Path, characters: set[str]) -> None:
    """Write the icons that are used as fonts, and the style that names them."""
    style = ""
    for name, (family, weight) in FACES.items():
        options = subset.Options(flavor="woff", layout_features=[], name_IDs=[])
        whole = static / FONT_AWESOME / "webfonts" / f"{name}.ttf"
        font = subset.load_font(whole, options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(text="".join(characters))
        subsetter.subset(font)
        subset.save_font(font, static / f"{name}.woff", options)
        style += STYLE.format(family=family, weight=weight, name=name)
    (static / "icons.css").write_text(style)


def _with_palette(path: Path) -> None:
    """Write a picture with 256 colours, if that makes it smaller."""
    before = path.stat().st_size
    with Image.open(path) as picture:
        if picture.mode not in ("RGB", "RGBA"):  # done by an earlier build
            return
        small = path.with_suffix(".small")
        options = {"dpi": picture.info["dpi"]} if "dpi" in picture.info else {}
        palette = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        palette.save(small, "PNG", optimize=True, **options)
    small.replace(path) if small.stat().st_size < before else small.unlink()


def _lighten(app, exception) -> None:
    """Exchange the icons, lighten the pictures, and remove what no page asks for."""
    if exception or app.builder.format != "html":
        return
    out, static = Path(app.outdir), Path(app.outdir, "_static")
    files = [path for path in out.rglob("*.html") if static not in path.parents]
    pages = {path: path.read_text() for path in files}
    for path, text in pages.items():
        lighter = SCRIPT.sub("", text).replace(LABEL, "").replace(NAMELESS, NAMED)
        lighter = lighter.replace(DEPRECATED, ' role="listitem"')
        lighter = CODE.sub(lambda code: COLOURLESS.sub(r"\1", code[0]), lighter)
        if lighter != text:
            path.write_text(lighter)
    for path in (out / "_images").glob("*.png"):
        _with_palette(path)
    if (static / FONT_AWESOME).exists():
        scripts = [path.read_text() for path in static.glob("scripts/*theme.js")]
        styles = [path.read_text() for path in (static / "styles").glob("*.css")]
        shown = icons("".join(styles), "".join([*pages.values(), *scripts]))
        _small_fonts(static, shown)
        shutil.rmtree(static / FONT_AWESOME)
    mathjax = static / "mathjax"
    unused = {*static.glob("scripts/fontawesome.js*"), *static.rglob("*.map")}
    for path in mathjax.rglob("*"):
        kept = path.relative_to(mathjax).as_posix().startswith(MATHJAX_KEPT)
        if path.is_file() and not kept:
            unused.add(path)
    for path in unused:
        path.unlink()


def setup(app):
    """Register the extension."""
    app.connect("html-page-context", _without_mathjax, priority=900)
    app.connect("build-finished", _lighten)
    app.add_post_transform(NameFolded)
    app.add_css_file("icons.css", priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
