"""The built book in a real browser, headless Chromium: what a reader sees, clicks and moves.

Run by `make test-browser`, which builds the book first. Without Chromium or a built book these tests are skipped,
unless the environment variable `SNNPARAMS_BROWSER` is set to `required`.
"""

import contextlib
import functools
import gzip
import html.parser
import http.server
import os
import re
import threading
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import pytest
from chromium import chromium
from notebooks import SMALLEST_LETTERS

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.glob("book/**/*.html"))
CHAPTERS = [name for name in PAGES if Path(name).name[0].isdigit()]
BEHIND = {"A": "book/when_it_does_not_learn.html", "B": "book/fair_comparison.html"}  # notebooks behind the chapters
WITHOUT_FORMULAS = [name for name in PAGES if 'class="math' not in (HTML / name).read_text()]

PHONE = {"width": 360, "height": 740}
SCREEN = {"width": 1280, "height": 900}
SIZES = pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["screen", "phone"])
LOOKED_AT = pytest.mark.parametrize(
    ("width", "theme"), [(1440, "dark"), (1280, "light"), (768, "dark"), (360, "light"), (360, "dark")]
)
WIDTHS = (1440, 1280, 768, 360)  # of a large screen, a laptop, a tablet and a phone
TITLE = "article.bd-article h1"
SETTLED = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)))"  # what is resized is marked
REMEMBER_FOLDS = "() => document.querySelectorAll('details').forEach(fold => { fold.dataset.first = fold.open })"
FOLD_AGAIN = "() => document.querySelectorAll('details').forEach(fold => { fold.open = fold.dataset.first === 'true' })"
AT_ONCE = "* { transition: none !important; animation: none !important; }"  # half-way colours are no colours


def missing() -> str | None:
    """Return why there is nothing to test, or None."""
    if not chromium():
        return "no Chromium: install Debian's package chromium"
    return None if PAGES else "the book is not built: run make book"


if os.environ.get("SNNPARAMS_BROWSER") == "required":
    assert not missing(), missing()
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not talk."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=HTML)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def new_page(browser, address):
    """Give a page that notes what goes wrong: messages of the console, failed requests, and requests to other hosts."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.problems = []

        def look(request):
            if not request.url.startswith((address, HTML.as_uri(), "data:", "blob:")):
                page.problems.append(f"request to {request.url}")

        page.on("request", look)
        page.on("requestfailed", lambda request: page.problems.append(f"failed: {request.url}"))
        page.on("console", lambda m: m.type == "error" and page.problems.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: page.problems.append(f"error: {error}"))
        yield page


@pytest.fixture
def page(browser, address):
    with new_page(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def looked_at(browser, address):
    """Return a function that opens a page of the book, once for all tests of it that follow each other and only look.

    They say which size and theme they need, and may open what is folded: the next one finds it folded again.
    """
    with contextlib.ExitStack() as stack:
        pages = {}

        def look_at(name, size, theme="light"):
            if name not in pages:
                stack.close()
                pages.clear()
                pages[name] = stack.enter_context(new_page(browser, address))
                pages[name].set_viewport_size(size)
                visit(pages[name], address, name)
                pages[name].evaluate(REMEMBER_FOLDS)
            page = pages[name]
            page.evaluate(FOLD_AGAIN)
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size(size)
            page.wait_for_function(f"() => document.documentElement.dataset.theme === '{theme}'")  # of a later frame
            page.evaluate(SETTLED)
            return page

        yield look_at


def visit(page, address, name):
    """Open a page and wait until its equations are typeset, and boxes that scroll are marked."""
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate(SETTLED)


# What is wider than the box that it stands in, without a way to see the rest
CUT = """() => [...document.querySelectorAll('article.bd-article *')].filter(box => {
  const style = getComputedStyle(box)
  const clips = style.overflowX !== 'visible' && box.clientWidth > 1 && box.scrollWidth > box.clientWidth + 1
  const reachable = ['auto', 'scroll'].includes(style.overflowX) && box.tabIndex === 0 && box.matches('.scrolls')
  return clips && !reachable && !box.parentElement.closest('mjx-container')
}).map(box => box.outerHTML.slice(0, 200))"""
# What stands out of the window, outside of all boxes that scroll
OUTSIDE = """() => [...document.querySelectorAll('article.bd-article *')].filter(part => {
  const box = part.getBoundingClientRect()
  return box.width > 1 && box.right > innerWidth + 1 && !part.closest('.scrolls, mjx-assistive-mml')
}).map(part => part.outerHTML.slice(0, 200))"""


# The smallest letters of pictures that were not drawn by a notebook, in pixels as they are shown, and their addresses
LETTERS_OF_DIAGRAMS = """all => Promise.all(all.map(async image => {
  const drawn = (await (await fetch(image.src)).text()).matchAll(/font-size[:=]"?([0-9.]+)/g)
  const shown = image.getBoundingClientRect().width / image.naturalWidth
  return [shown * Math.min(...[...drawn].map(size => Number(size[1]))), image.src]
}))"""


# Marks three texts of each look. axe asks of every text what is behind it, which takes most of its time, and a page has
# thousands of words of code in a few dozen looks. All that decides about contrast is part of a look.
MARK_LOOKS = """() => {
  const [behind, seen] = [new Map(), new Map()]
  const layers = part => {
    if (!part) return ''
    if (!behind.has(part)) {
      const {backgroundColor, backgroundImage, opacity, filter, mixBlendMode} = getComputedStyle(part)
      const own = [backgroundColor, backgroundImage, opacity, filter, mixBlendMode].join()
      const clear = own === 'rgba(0, 0, 0, 0),none,1,none,normal'
      behind.set(part, layers(part.parentElement) + (clear ? '' : `|${own}`))
    }
    return behind.get(part)
  }
  for (const part of document.querySelectorAll('body *')) {
    part.removeAttribute('data-look')
    if (![...part.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue
    const {color, fill, fontSize, fontWeight, textShadow} = getComputedStyle(part)
    const own = [part.tagName, part.getAttribute('class'), color, fill, fontSize, fontWeight, textShadow]
    const look = [...own, part.checkVisibility({visibilityProperty: true}), layers(part)].join(';')
    seen.set(look, (seen.get(look) ?? 0) + 1)
    if (seen.get(look) <= 3) part.dataset.look = ''
  }
  return seen.size
}"""


def poor_contrast(page):
    """Return where axe finds too little contrast, among three texts of each look."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert page.evaluate(MARK_LOOKS) > 10
    rule = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}
    found = axe.run(page, context={"include": [["[data-look]"]]}, options=rule).response
    assert found["passes"]
    return [(node["target"], node["failureSummary"]) for v in found["violations"] for node in v["nodes"]]


@pytest.mark.parametrize("name", PAGES, scope="module")  # all tests of a page after each other
class TestPage:
    def test_loads_without_an_error_or_a_request_to_another_host(self, page, address, name):
        visit(page, address, name)
        page.wait_for_load_state("networkidle")
        assert page.problems == []
        assert page.locator(TITLE).count() == 1

    def test_works_from_a_folder(self, page, name):
        visit(page, HTML.as_uri(), name)
        assert page.problems == []
        assert page.locator("mjx-container").count() >= page.locator(".math").count()
        assert page.locator("html").get_attribute("data-theme") == "light"

    def test_nothing_is_cut_without_a_way_to_see_it(self, looked_at, name):
        page = looked_at(name, SCREEN)
        page.evaluate("() => document.querySelectorAll('details').forEach(fold => { fold.open = true })")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(SETTLED)
            assert (width, page.evaluate(CUT)) == (width, [])
            assert (width, page.evaluate(OUTSIDE)) == (width, [])
            assert page.evaluate("() => document.scrollingElement.scrollWidth") <= width

    def test_pictures_keep_their_proportions(self, looked_at, name):
        page = looked_at(name, PHONE)
        page.evaluate("() => document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            squeezed = page.locator("article.bd-article img:visible:not(.sd-card-img-top)").evaluate_all(
                """all => all.filter(x => Math.abs(x.width / x.height / (x.naturalWidth / x.naturalHeight) - 1) > 0.03)
                  .map(x => x.outerHTML)"""
            )
            assert (width, squeezed) == (width, [])

    def test_letters_in_figures_can_be_read_on_a_phone(self, looked_at, name):
        page = looked_at(name, PHONE)
        drawn = page.locator("figure img[src$='.png'][style*='width']").evaluate_all(
            "all => all.map(x => [x.getBoundingClientRect().width / Number.parseFloat(x.style.width), x.alt])"
        )
        letters = SMALLEST_LETTERS * 110 / 72  # pixels of a figure as it was drawn
        assert [(letters * scale, alt) for scale, alt in drawn if letters * scale < 9] == []
        sizes = page.locator("figure img[src$='.svg']:visible").evaluate_all(LETTERS_OF_DIAGRAMS)
        assert [size for size in sizes if size[0] < 9] == []

    def test_only_formulas_that_scroll_are_stops_of_the_keyboard(self, looked_at, name):
        page = looked_at(name, SCREEN)
        formulas = page.locator("mjx-container, span.math")
        stops = "all => all.filter(x => x.tabIndex >= 0 && !x.matches('.scrolls')).length"
        tall = "all => all.filter(x => x.scrollHeight > x.clientHeight + 1).map(x => x.innerText)"
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(SETTLED)
            assert (width, formulas.evaluate_all(stops)) == (width, 0)
            assert (width, page.locator("div.math mjx-container").evaluate_all(tall)) == (width, [])

    def test_a_fold_is_called_what_is_written_on_it(self, looked_at, name):
        page = looked_at(name, SCREEN)
        for fold in page.locator("details.hide > summary").all():
            assert fold.get_attribute("aria-label") is None
            assert re.match("Show the code (of|that) ", fold.inner_text())

    def test_equations_are_typeset(self, looked_at, name):
        page = looked_at(name, SCREEN)
        equations = page.locator(".math")
        assert page.locator("mjx-merror").count() == 0
        assert page.locator("mjx-container").count() >= equations.count()
        text = equations.evaluate_all("all => all.map(x => x.innerText).join(' ')")
        assert "\\(" not in text
        assert "\\[" not in text

    def test_every_image_is_drawn_and_described(self, looked_at, name):
        page = looked_at(name, SCREEN)
        page.evaluate("() => document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        bad = page.evaluate(
            "() => [...document.images].filter(image => !image.naturalWidth || !image.alt.trim()).map(x => x.outerHTML)"
        )
        assert [html[:200] for html in bad] == []

    @LOOKED_AT
    def test_has_contrast(self, looked_at, name, width, theme):
        page = looked_at(name, {"width": width, "height": 900}, theme)
        page.add_style_tag(content=AT_ONCE)
        assert poor_contrast(page) == []

    @LOOKED_AT
    def test_is_accessible(self, looked_at, name, width, theme):
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        page = looked_at(name, {"width": width, "height": 900}, theme)
        page.add_style_tag(content=AT_ONCE)
        rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
        rules["rules"] = {"color-contrast": {"enabled": False}}  # the test before this one
        rules["resultTypes"] = ["violations"]  # of rules that hold one place is named, not thousands
        found = axe.run(page, options=rules).response
        assert found["passes"]
        assert [
            (v["id"], node["target"], node["failureSummary"]) for v in found["violations"] for node in v["nodes"]
        ] == []


@pytest.mark.parametrize(
    "pale", [".highlight .k", "table.results td", "article p", "nav.bd-links a", ".live-controls *"]
)
def test_a_pale_look_would_be_seen(page, address, pale):
    visit(page, address, "book/6_benefit.html")
    page.wait_for_selector(".live-controls")
    assert page.locator(pale).count()
    page.add_style_tag(content=f"{AT_ONCE} {pale} {{ color: #bbb !important; fill: #bbb !important }}")
    assert poor_contrast(page)


@pytest.mark.parametrize("size", [None, PHONE], ids=["screen", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_figures_compute_where_there_are_some(page, address, name, size):
    if size:
        page.set_viewport_size(size)
    visit(page, address, name)
    figures = page.locator("figure[class*='live-']")
    scripts = page.evaluate("() => [...document.scripts].map(x => x.src).filter(x => x.includes('/live/'))")
    assert bool(scripts) == bool(figures.count())  # other pages load nothing
    for figure in figures.all():
        assert figure.locator("img").count() == 0
        assert figure.locator(".caption-number").inner_text().startswith("Fig")
        assert 250 < figure.locator("svg").first.bounding_box()["width"] <= page.viewport_size["width"]
        before = figure.locator("svg").first.inner_html()
        figure.locator("input[type=range]").first.press("End")
        page.wait_for_function("figure => !figure.figure.busy", arg=figure.element_handle())
        assert figure.locator("svg").first.inner_html() != before
    assert page.problems == []


def test_figures_compute_in_a_page_that_was_opened_from_a_folder(page):
    count = 0
    for name in PAGES:
        page.goto((HTML / name).as_uri())
        figures = page.locator("figure[class*='live-']")
        count += figures.count()
        assert figures.locator(".live-controls").count() == figures.count()
    assert count >= 4


@pytest.mark.parametrize("chapter", ["1_lif_neuron", "2_heterogeneity", "6_benefit"])
def test_without_javascript_a_figure_is_a_picture_with_a_caption(browser, address, chapter):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/book/{chapter}.html")
        for figure in page.locator("figure[class*='live-']").all():
            assert figure.locator("img").bounding_box()["height"] > 100
            assert figure.locator("figcaption").inner_text()


def test_search_finds_tau_mem(page, address):
    visit(page, address, "search.html?q=tau_mem")
    page.wait_for_selector("ul.search li a")
    found = page.locator("ul.search li a").evaluate_all("all => all.map(x => x.href)")
    assert any("notation.html" in link or "1_lif_neuron.html" in link for link in found)
    assert page.problems == []


def test_search_works_from_a_folder(page):
    page.goto(f"{HTML.as_uri()}/search.html?q=tau_mem")
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li a").count() > 3
    assert page.problems == []


def test_navigation_leads_through_the_book(page, address):
    visit(page, address, "book/index.html")
    titles = []
    while page.locator("a.right-next").count():
        page.locator("a.right-next").click()
        page.wait_for_load_state("load")
        titles.append(page.locator(TITLE).inner_text())
    assert len(titles) == len(PAGES) - 1
    assert len(set(titles)) == len(titles)
    for _ in titles:
        page.locator("a.left-prev").click()
        page.wait_for_load_state("load")
    assert page.url.startswith(f"{address}/book/index.html")


@pytest.mark.parametrize("size", [{"width": 1366, "height": 900}, PHONE], ids=["screen", "phone"])
def test_one_search_field_and_a_sidebar_that_opens_and_closes(page, address, size):
    page.set_viewport_size(size)
    visit(page, address, "book/4_mnist.html")
    page.add_style_tag(content=AT_ONCE)
    sidebar = page.locator("nav[aria-label='Main']:visible")
    search = page.locator("button.search-button__button:visible")
    toggle = page.locator("button.primary-toggle:visible")
    assert toggle.count() == search.count() == 1
    if size is PHONE:
        assert sidebar.count() == 0
        toggle.click()
        assert sidebar.count() == 1
        page.keyboard.press("Escape")
    else:
        assert sidebar.count() == 1
        toggle.click()
        assert sidebar.count() == 0
        toggle.click()
    search.click()
    page.keyboard.type("tau_mem")
    page.keyboard.press("Enter")
    page.wait_for_selector("ul.search li a")
    assert page.problems == []


def test_copy_button_copies_a_cell(page, address):
    visit(page, address, "book/3_registering.html")
    cell = page.locator("div.cell_input div.highlight:visible").first  # others are folded
    cell.hover()
    cell.locator("button.copybtn").click()
    page.wait_for_function("() => navigator.clipboard.readText().then(text => text.length > 0)")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_the_theme_button_switches_to_dark(page, address):
    visit(page, address, "book/1_lif_neuron.html")
    themes = set()
    for _ in range(3):  # auto, light, dark
        page.locator("button.theme-switch-button:visible").first.click()
        themes.add(page.evaluate("() => document.documentElement.dataset.theme"))
    assert themes == {"light", "dark"}


def test_solutions_are_folded_and_open(page, address):
    visit(page, address, "book/1_lif_neuron.html")
    solution = page.locator(".solution.dropdown").first
    content = solution.locator("section").first
    before = content.bounding_box()
    solution.locator("button.toggle-button, .admonition-title").first.click()
    page.wait_for_timeout(500)
    after = content.bounding_box()
    assert after["height"] > 0
    assert before is None or before["height"] < after["height"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_formulas_of_a_chapter_fit_a_phone(page, address, name):
    page.set_viewport_size(PHONE)
    visit(page, address, name)
    wide = page.locator("div.math mjx-container").evaluate_all("all => all.filter(x => x.scrollWidth > x.clientWidth)")
    assert wide == []


def test_every_page_describes_itself_in_sentences(page, address):
    said = {}
    for name in PAGES:
        visit(page, address, name)
        found = page.locator("meta[name='description']").evaluate_all("all => all.map(x => x.content)")
        assert len(found) == 1, name
        assert found == page.locator("meta[property='og:description']").evaluate_all("all => all.map(x => x.content)")
        said[name] = found[0]
        assert 40 < len(found[0]) <= 300, name
        assert found[0].endswith((".", "?", ":", ")")), found[0]
    assert len(set(said.values())) == len(PAGES)
    assert re.search(r"\d+\.\d percentage points", said["book/index.html"])


def test_chapters_have_their_numbers(page, address):
    visit(page, address, "book/index.html")
    entries = page.locator("nav.bd-links a.reference.internal").all_inner_texts()
    numbered = [text for text in entries if re.match(r"\d+\. ", text)]
    assert [text[0] for text in entries if re.match("[A-Z][.] ", text)] == list(BEHIND)
    assert [int(text.split(".")[0]) for text in numbered] == list(range(1, len(CHAPTERS) + 1))
    for number, entry in enumerate(numbered, start=1):
        page.locator("nav.bd-links a.reference.internal", has_text=entry).click()
        page.wait_for_load_state("load")
        assert page.locator(TITLE).inner_text().rstrip("#").strip() == entry
        captions = page.locator("figure .caption-number, p.admonition-title .caption-number").all_inner_texts()
        captions += page.locator("div.exercise p.admonition-title").all_inner_texts()
        assert captions
        assert [text for text in captions if f" {number}." not in text] == []


@pytest.mark.parametrize(("letter", "name"), BEHIND.items())
def test_a_notebook_behind_the_chapters_has_a_letter(page, address, letter, name):
    visit(page, address, name)
    assert page.locator(TITLE).inner_text().startswith(f"{letter}. ")
    assert page.locator("article h2 .section-number").count() == 0
    captions = page.locator("figure .caption-number, div.exercise p.admonition-title").all_inner_texts()
    assert len(captions) > {"A": 8, "B": 4}[letter]
    assert [text for text in captions if f" {letter}." not in text] == []
    assert any(text.startswith(f"Fig. {letter}.1") for text in captions)
    assert any(text.startswith(f"Exercise {letter}.1") for text in captions)


@SIZES
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["book/index.html", "book/6_benefit.html", "book/7_adjoint.html", "book/api.html"])
def test_one_sees_where_the_keyboard_is(page, address, name, size, theme):
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=theme)
    visit(page, address, name)
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        what, style, width, height = page.evaluate(
            """() => {
              const focused = document.activeElement
              const style = getComputedStyle(focused)
              const ring = [style.outlineStyle, parseFloat(style.outlineWidth)]
              return [focused.outerHTML.slice(0, 300), ...ring, focused.getBoundingClientRect().height]
            }"""
        )
        if what.startswith("<body"):
            break
        assert style == "solid", what
        assert width >= 2, what
        assert height >= 8, what  # a ring around nothing is a line
        seen.add(what)
    assert any("toggle" in what for what in seen)
    assert any("theme-switch" in what for what in seen)
    if "benefit" in name or "adjoint" in name:  # a notebook
        assert any("dropdown-toggle" in what for what in seen), "the button that downloads"


@pytest.mark.parametrize("name", ["book/8_own_neuron.html", BEHIND["B"]])
def test_the_first_column_of_a_table_that_scrolls_stays(page, address, name):
    page.set_viewport_size(PHONE)
    visit(page, address, name)
    box = page.locator(".scrolls:has(> table)").first
    left = "x => x.querySelector('tbody tr > :first-child').getBoundingClientRect().left"
    before = box.evaluate(left)
    box.evaluate("x => { x.scrollLeft = 60 }")
    page.wait_for_function("() => document.querySelector('.scrolls.more-left > table')")
    assert box.evaluate(left) == pytest.approx(before, abs=1)  # pixel
    assert box.evaluate("x => x.querySelector('tbody tr > :nth-child(2)').getBoundingClientRect().left") < 360
    assert box.get_attribute("aria-label") == "Table, scrolls sideways"


def test_paper_is_light_also_after_dark_was_chosen(page, address):
    page.emulate_media(color_scheme="dark")
    visit(page, address, "book/6_benefit.html")
    theme = "() => document.documentElement.dataset.theme"
    colours = "() => [document.body, document.querySelector('article p')].map(x => getComputedStyle(x).color)"
    assert page.evaluate(theme) == "dark"
    pale = page.evaluate(colours)
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    page.add_style_tag(content=AT_ONCE)
    dark = page.evaluate(colours)
    assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) > 500 for colour in pale)
    assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) < 250 for colour in dark)
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")


PAPER = 718  # pixels of a page of A4, as browsers print it


# What stands out of the paper, or is cut at its edge, or at the edge of the drawing that it is in
OFF_PAPER = f"""() => [...document.querySelectorAll('article.bd-article *')].filter(part => {{
  const box = part.getBoundingClientRect()
  if (box.width <= 1 || part.closest('mjx-assistive-mml')) return false
  if (part.closest('svg svg')) return false // curves that leave their axes are cut off on purpose
  const drawing = part.ownerSVGElement?.getBoundingClientRect()
  if (drawing) {{
    const beside = Math.max(drawing.left - box.left, box.right - drawing.right)
    const beyond = Math.max(drawing.top - box.top, box.bottom - drawing.bottom)
    if (Math.max(beside, beyond) > 3) return true // pixels: the outline of a letter may be that wide
  }}
  const style = getComputedStyle(part)
  const cut = style.overflowX !== 'visible' && part.scrollWidth > part.clientWidth + 1
  return box.right > {PAPER} || (!drawing && cut && !part.parentElement.closest('mjx-container'))
}}).map(part => part.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_legible_on_paper_after_dark_was_chosen(page, address, name):
    page.add_init_script("localStorage.setItem('mode', 'dark'); localStorage.setItem('theme', 'dark')")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    visit(page, address, name)
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    page.add_style_tag(content=AT_ONCE)
    page.evaluate(SETTLED)
    assert page.evaluate(OFF_PAPER) == []
    assert poor_contrast(page) == []


@pytest.mark.parametrize("name", [*CHAPTERS, "book/index.html", "book/glossary.html"])
def test_a_printed_page_has_the_title_of_the_screen(page, address, name):
    visit(page, address, name)
    shown = page.locator(TITLE).inner_text().rstrip("#").strip()
    page.emulate_media(media="print")
    titles = page.locator("h1:visible").all_inner_texts()
    assert [title.rstrip("#").strip() for title in titles] == [shown]


def test_numbers_of_a_table_stand_below_each_other(page, address):
    visit(page, address, "book/2_heterogeneity.html")
    column = page.locator("table.results").first.locator("td:nth-child(2)")
    assert column.count() >= 3
    ends = column.evaluate_all(
        """all => all.map(cell => {
          const range = document.createRange()
          range.selectNodeContents(cell)
          return range.getBoundingClientRect().right
        })"""
    )
    assert max(ends) - min(ends) < 0.5  # pixel


def test_broad_tables_show_all_of_a_row_on_a_phone(page, address):
    page.set_viewport_size(PHONE)
    visit(page, address, "book/6_benefit.html")
    in_chapter = page.locator("table.results.stacked").count()
    visit(page, address, BEHIND["B"])
    assert in_chapter + page.locator("table.results.stacked").count() >= 7
    assert page.locator(".table-wrapper.scrolls table.stacked").count() == 0
    dashes = page.locator("table.stacked td.dash")
    assert dashes.count() == dashes.locator("visible=false").count() > 0
    gains = page.locator("table.stacked", has=page.locator("td[data-column='minus equal (points)']")).first
    for row in gains.locator("tbody tr").all()[1:5]:
        for part in ("th", "td[data-column='minus equal (points)']"):
            assert row.locator(part).evaluate("x => x.getBoundingClientRect().right <= innerWidth")


BROKEN_WORDS = """cells => cells.flatMap(cell => {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT)
  const broken = []
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
      const range = document.createRange()
      range.setStart(texts.currentNode, word.index)
      range.setEnd(texts.currentNode, word.index + word[0].length)
      const lines = new Set([...range.getClientRects()].filter(x => x.width > 0).map(x => Math.round(x.top)))
      if (lines.size > 1) broken.push(word[0])
    }
  }
  return broken
})"""


@pytest.mark.parametrize("name", [name for name in PAGES if "book/api" not in name])  # whose names are dotted
def test_tables_of_words_are_read_as_a_whole_on_a_phone(page, address, name):
    page.set_viewport_size(PHONE)
    visit(page, address, name)
    written = page.locator("article table.table:not(.results)")
    assert written.evaluate_all("all => all.filter(x => x.scrollWidth > x.parentElement.clientWidth)") == []
    assert page.locator("article table.results").locator("th, td").evaluate_all(BROKEN_WORDS) == []
    code = [word for word in written.locator("th, td").evaluate_all(BROKEN_WORDS) if not re.search("[.(_]", word)]
    assert code == []
    for cell in page.locator("table.stacked td:has(> p > .column-name)").all()[:3]:
        head = cell.locator(".column-name")
        assert head.inner_text().strip().endswith(":")
        page.set_viewport_size(SCREEN)
        assert head.locator("visible=true").count() == 0
        page.set_viewport_size(PHONE)


def test_rows_named_by_sentences_are_short_on_a_phone(page, address):
    page.set_viewport_size(PHONE)
    visit(page, address, BEHIND["B"])
    table = page.locator("table.stacked", has=page.locator("td[data-column='predicted']")).first
    names = table.locator("tbody th").evaluate_all("all => all.map(x => x.clientWidth)")
    assert min(names) > 250
    assert table.evaluate("x => x.scrollWidth <= x.parentElement.clientWidth")
    beside = table.locator("tbody tr").first.locator("td[data-column='predicted']")
    assert beside.evaluate("x => getComputedStyle(x, '::before').content") == '"predicted: "'


@SIZES
def test_a_heading_weighs_less_than_the_one_above_it(page, address, size):
    page.set_viewport_size(size)
    visit(page, address, "book/7_adjoint.html")
    weights = page.evaluate(
        """() => ['h1', 'h2', 'h3'].map(tag => {
          const style = getComputedStyle(document.querySelector(`article.bd-article ${tag}`))
          return [parseFloat(style.fontSize), parseInt(style.fontWeight)]
        })"""
    )
    assert sorted(weights, reverse=True) == weights
    assert len({size for size, _ in weights}) == 3
    assert len({weight for _, weight in weights}) == 1


# What a page weighs


def test_there_are_pages_without_formulas():
    assert "book/references.html" in WITHOUT_FORMULAS
    assert "book/1_lif_neuron.html" not in WITHOUT_FORMULAS


class Weight(NamedTuple):
    """What a page weighs in kB: its HTML, all that it loads, and that compressed by gzip; and what it loads."""

    html: float
    loaded: float
    compressed: float
    urls: tuple[str, ...]


@pytest.fixture(scope="module")
def weights(browser, address):
    """The weight of every page, when nothing is cached."""
    found = {}
    for name in PAGES:
        with browser.new_context() as context:
            page, responses = context.new_page(), []
            page.on("response", lambda response, seen=responses: seen.append(response))
            page.goto(f"{address}/{name}", wait_until="networkidle")
            bodies = {response.url: response.body() for response in responses}
        small = sum(min(len(body), len(gzip.compress(body))) for body in bodies.values())
        sizes = (len(bodies[f"{address}/{name}"]), sum(map(len, bodies.values())), small)
        found[name] = Weight(*(size / 1000 for size in sizes), tuple(bodies))
    return found


def kind(name):
    """Return the row of the table in CONTRIBUTING.md that holds for a page."""
    if name == "book/index.html":
        return "the first page"
    if name in CHAPTERS or name in BEHIND.values():  # notebooks with figures
        return "a chapter"
    return "a page of the reference" if "/api/" in name else "another page"


def test_pages_weigh_what_the_table_says(weights):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| ([a-z ]+) \| ([\d ]+) \| ([\d ]+) \| ([\d ]+) \|$", text, re.M)
    most = {row: [int(number.replace(" ", "")) for number in numbers] for row, *numbers in rows}
    assert set(most) == {kind(name) for name in PAGES}
    for row, limits in most.items():
        assert limits[0] <= 1500
        heaviest = [max(weights[name][k] for name in PAGES if kind(name) == row) for k in range(3)]
        for weight, limit in zip(heaviest, limits, strict=True):
            assert limit / 2 < weight <= limit, (row, heaviest)


def test_code_carries_only_marks_that_have_a_colour():
    style = (HTML / "_static" / "pygments.css").read_text()
    for theme in ("light", "dark"):
        of_theme = rf'data-theme="{theme}"\] \.highlight'
        (plain,) = re.findall(rf"{of_theme} \{{[^}}]*; color: (#\w+) \}}", style)
        for mark in ("n", "p"):
            assert re.findall(rf"{of_theme} \.{mark} \{{ color: (#\w+) \}}", style) == [plain]
    for name in PAGES:
        code = "".join(re.findall(r"<pre>.*?</pre>", (HTML / name).read_text(), re.DOTALL))
        assert not re.search(r'<span class="[np]">', code), name
        assert '<span class="k' in code or not re.search(r"\bimport\b|\bdef\b", code), name


def test_the_book_weighs_what_is_written(weights):
    whole = sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) / 1e6
    (most,) = re.findall(r"the whole book (\d+) MB", (ROOT / "CONTRIBUTING.md").read_text())
    assert int(most) / 2 < whole <= int(most)


def test_a_page_loads_only_what_it_needs(weights):
    for name, weight in weights.items():
        assert not [url for url in weight.urls if "fontawesome" in url]
        assert any("fa-solid-900.woff" in url for url in weight.urls), "the theme's buttons have icons"
        assert any("mathjax" in url for url in weight.urls) == (name not in WITHOUT_FORMULAS), name


def test_every_icon_is_in_the_font(page, address):
    tt = pytest.importorskip("fontTools.ttLib")
    fonts = list((HTML / "_static").glob("fa-*.woff"))
    assert max(path.stat().st_size for path in fonts) < 5000
    drawn = {chr(code) for path in fonts for code in tt.TTFont(path).getBestCmap() or {}}
    for name in PAGES:
        visit(page, address, name)
        shown = page.evaluate(
            """() => [...document.querySelectorAll('*')]
              .flatMap(x => ['::before', '::after'].map(part => getComputedStyle(x, part)))
              .filter(style => style.fontFamily.includes('Awesome')).map(style => style.content)"""
        )
        signs = {sign for text in shown for sign in text if "\ue000" <= sign <= "\uf8ff"}
        assert len(signs) >= 4
        assert signs <= drawn


# The reference, and links


class Links(html.parser.HTMLParser):
    """The anchors of a page, and where it leads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = {""}, set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.targets.add(attributes["href"])


@functools.cache
def links(path):
    return Links(path)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_inside_the_book_leads_somewhere(name):
    for target in links(HTML / name).targets:
        url = urllib.parse.urlsplit(target)
        if not url.scheme:
            path = (HTML / name).parent / urllib.parse.unquote(url.path) if url.path else HTML / name
            assert path.resolve().exists(), target
            if path.suffix == ".html" and url.fragment:
                assert urllib.parse.unquote(url.fragment) in links(path.resolve()).anchors, target


def test_the_index_names_all_that_the_pages_document(page, address):
    visit(page, address, "book/api.html")
    indexed = set(
        page.locator(".reference-index td:first-child a").evaluate_all("all => all.map(x => x.hash.slice(1))")
    )
    kinds = re.compile(r'<dl class="py (?:function|class|exception|data)">\s*<dt[^>]* id="([^"]+)"')
    documented = {name for path in HTML.glob("book/api/*.html") for name in kinds.findall(path.read_text())}
    assert len(documented) > 100
    assert indexed == documented
    broken = """all => all.filter(x => x.querySelectorAll('.pre').length && [...x.querySelectorAll('.pre')]
        .some(part => part.getClientRects().length > 1)).map(x => x.innerText)"""
    assert page.locator(".reference-index td:first-child code").evaluate_all(broken) == []  # but behind a dot
    said = page.locator(".reference-index td:nth-child(2)").all_inner_texts()
    assert [text for text in said if not text.strip().endswith(".") or ":math:" in text] == []


def test_the_reference_and_the_chapters_lead_to_each_other(page, address):
    layers = links(HTML / "book" / "api" / "layers.html").targets
    assert {"../1_lif_neuron.html", "../3_registering.html", "../10_speed.html"} <= {
        t.partition("#")[0] for t in layers
    }
    visit(page, address, "book/api.html")
    row = page.locator(".reference-index tr", has=page.locator("a[href$='.LIFRecurrent']"))
    chapters = row.locator("td:last-child a").all_inner_texts()
    assert "4" in chapters
    row.locator("td:last-child a", has_text="4").click()
    page.wait_for_load_state("networkidle")  # what is still loading when a page is left counts as failed
    page.locator("article a[href*='api/layers.html'] code", has_text="LIFRecurrent").first.click()
    page.wait_for_load_state("load")
    assert "/book/api/layers.html#snnparams." in page.url
    assert page.problems == []


def test_formulas_in_a_line_of_text_are_left_alone_where_they_fit(page, address):
    page.set_viewport_size(PHONE)
    visit(page, address, "book/1_lif_neuron.html")
    assert page.locator("span.math").count() > 20
    assert page.locator("span.math.scrolls").count() == 0
    page.set_viewport_size(SCREEN)
    page.evaluate(SETTLED)
    assert page.locator("span.math.scrolls, span.math.wide").count() == 0


@pytest.mark.parametrize("name", ["book/7_adjoint.html", "book/9_delays.html"])
def test_no_formula_in_a_line_of_text_fades_after_the_window_was_narrow(page, address, name):
    page.set_viewport_size(PHONE)
    visit(page, address, name)
    formulas = page.locator("span.math")
    page.set_viewport_size({"width": 60, "height": 740})
    page.wait_for_function("() => document.querySelectorAll('span.math.scrolls').length > 5")
    page.set_viewport_size(PHONE)
    page.wait_for_function("() => !document.querySelector('span.math.wide')")
    page.evaluate(SETTLED)
    masked = "all => all.filter(x => getComputedStyle(x).maskImage !== 'none').length"
    assert formulas.evaluate_all(masked) == 0
    left = "all => all.filter(x => x.matches('.scrolls') || x.tabIndex >= 0 || x.ariaLabel).length"
    assert formulas.evaluate_all(left) == 0


def test_a_box_fades_only_where_more_than_half_a_letter_is_hidden(page, address):
    page.set_viewport_size(PHONE)
    visit(page, address, "book/using.html")
    box = page.locator("div.highlight pre.scrolls").first
    room = box.evaluate("x => x.scrollWidth - x.clientWidth")
    assert room > 40
    for hidden, fades in ((20, True), (5, False), (30, True), (0, False)):
        box.evaluate("(x, left) => { x.scrollLeft = left }", room - hidden)
        page.evaluate(SETTLED)
        assert (hidden, box.evaluate("x => x.matches('.more-right')")) == (hidden, fades)


@pytest.mark.parametrize("name", PAGES)
def test_every_formula_of_the_text_is_there(name):
    html = (HTML / name).read_text()
    assert not re.findall(r'class="math[^"]*">\\[(\[]\s*\\[)\]]', html)


def test_a_line_does_not_begin_with_the_mark_after_a_formula(page, address):
    visit(page, address, "book/1_lif_neuron.html")
    pairs = page.locator(".together")
    assert pairs.count() > 10
    for width in (360, 500, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        rows = "all => all.filter(x => x.getClientRects().length > 1).length"
        assert pairs.evaluate_all(rows) == 0
