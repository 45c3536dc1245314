"""Print the book, built as one page, to _build/book.pdf, and look at what came out: `make pdf`.

Jupyter Book's own pdfhtml does the same with a browser that playwright downloads, and without waiting for equations.
"""

import re
import shutil
import unicodedata
from pathlib import Path

import nbformat
from chromium import chromium, launch
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "singlehtml"
PDF = ROOT / "_build" / "book.pdf"
NUMBER = '<p style="width:100%;text-align:center;font-size:8px"><span class="pageNumber"></span></p>'
PAPER = {
    "format": "A4",
    "scale": 0.75,  # the longest lines of code fit
    "margin": {"top": "15mm", "bottom": "15mm", "left": "12mm", "right": "12mm"},
    "display_header_footer": True,
    "header_template": "<p></p>",
    "footer_template": NUMBER,
    "print_background": True,
    "outline": True,
    "tagged": True,
}
# what leads to a file leads to the place in the book, or nowhere
INSIDE = """() => document.querySelectorAll('a[href]').forEach(link => {
  if (link.protocol === 'file:') link.hash ? link.setAttribute('href', link.hash) : link.removeAttribute('href')
})"""


def print_page(source: Path, pdf: Path) -> None:
    """Print a page once its equations are typeset and its pictures are there."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(300_000)
        page.goto(source.as_uri(), wait_until="load")
        page.evaluate("() => MathJax.startup.promise")
        page.evaluate(INSIDE)
        page.evaluate("() => document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        assert page.locator("mjx-container").count() >= page.locator(".math").count() > 0
        assert page.locator("mjx-merror").count() == 0
        assert page.evaluate("() => [...document.images].every(image => image.hidden || image.naturalWidth)")
        page.pdf(path=pdf, **PAPER)
        browser.close()


def titles() -> list[str]:
    """Return the first heading of every page of the book."""
    pages = [path.read_text() for path in (ROOT / "book").glob("*.md")]
    for path in (ROOT / "book").glob("*.ipynb"):
        pages.append(nbformat.read(path, as_version=4).cells[0].source)
    return [re.search(r"^# (.+)$", text, re.M)[1] for text in pages]


def is_blank(page, number: int) -> bool:
    """Return whether there is nothing on a page but its number; a picture takes more than 500 bytes to draw."""
    return page.extract_text().strip() == str(number) and len(page.get_contents().get_data()) < 500


def check(pdf: Path) -> None:
    """Stop unless the book is complete, and its links lead to no file of this machine."""
    reader = PdfReader(pdf)
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    text = unicodedata.normalize("NFKC", text)  # a font draws two letters, as the ff of different, as one sign
    assert len(reader.pages) > 30, len(reader.pages)
    blank = [n for n, page in enumerate(reader.pages, start=1) if is_blank(page, n)]
    assert not blank, f"pages with nothing but a number: {blank}"
    assert "LIFRecurrent" in text.partition("what it is")[2][:20_000], "the index of the reference is empty"
    for title in titles():
        assert title in text, f"{title!r} is missing"
    notes = [note.get_object() for page in reader.pages for note in page.get("/Annots", [])]
    links = [str(note["/A"]["/URI"]) for note in notes if "/URI" in note.get("/A", {})]
    assert not [link for link in links if link.startswith("file:")]
    print(f"{pdf.relative_to(ROOT)}: {len(reader.pages)} pages")


if __name__ == "__main__":
    if not chromium():
        raise SystemExit("no Chromium: install Debian's package chromium")
    # written as book/index.html, with links that lead from the folder above
    page = shutil.copy(BUILT / "book" / "index.html", BUILT / "book.html")
    print_page(page, PDF)
    check(PDF)
