"""The figures that compute in the page: what they compute is what the package computes; mouse, keyboard and finger.

In headless Chromium, without the built book. Without Chromium these tests are skipped, unless the environment
variable `SNNPARAMS_BROWSER` is set to `required`.
"""

import itertools
import json
import math
import os
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

import snnparams as sp
from snnparams.experiments import memory
from snnparams.experiments.designs import spaced
from snnparams.experiments.statistics import mean_contrast

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
import benefit_analysis
import benefit_design
import benefit_explorer
from benefit_analysis import FOLDER
from benefit_design import EQUAL, LEARNS, MEM, SHARED, SYN
from chromium import chromium
from live_figures import LIVE, NAMES, RESULTS, still, write_page

if os.environ.get("SNNPARAMS_BROWSER") == "required":
    assert chromium(), "no Chromium: install Debian's package chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium(), reason="no Chromium: install Debian's package chromium"),
]
few = settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])  # each has many settings
WIDTHS = (1440, 1280, 768, 360)
LARGEST = 60_000  # bytes of all scripts, without data
UPDATES_PER_FRAME = 5000
NAME, BOTH = "name", ("light", "dark")


@pytest.fixture(autouse=True, scope="module")
def _double():
    """Compute in the precision of JavaScript."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def shared(browser, address):
    """One page for all tests that only compute."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    yield page
    page.close()


@pytest.fixture
def page(browser, address):
    """A page of its own, that notes what goes wrong."""
    with browser.new_context(has_touch=True, viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.problems = []
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or page.problems.append(r.url))
        page.on("console", lambda m: m.type in ("error", "warning") and page.problems.append(m.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(address)
        yield page
        assert page.problems == []


def values(page, name, many):
    """Return what a figure computes for each of many settings; what they do not name has its default."""
    script = """([name, many]) => {
        const { figure } = document.getElementById(name);
        return many.map(one => figure.set({ ...figure.defaults, ...one }).result);
    }"""
    return page.evaluate(script, [name, many])


def shown(page, name):
    """Return what a figure has computed."""
    return page.evaluate("name => document.getElementById(name).figure.result", name)


def idle(page, name):
    page.wait_for_function("name => !document.getElementById(name).figure.busy", arg=name)


COUNTED = """name => {  // count the updates of each frame: an update may be announced in the frame before it is made
    const {figure} = document.getElementById(name), {frame} = figure;
    window.updatesOfFrames = [];
    figure.frame = (...most) => {
        const before = figure.ahead - figure.updates;
        frame.apply(figure, most);
        if (!most.length) window.updatesOfFrames.push(before + figure.updates - figure.ahead);
    };
}"""


def state(page, name):
    return page.evaluate("name => document.getElementById(name).figure.state", name)


def column(many, name):
    return torch.tensor([one[name] for one in many], dtype=torch.float64)


def same(found, expected, relative=1e-6):
    """Compare numbers; beside one that has exploded, rounding grows as it does."""
    found = torch.tensor([[math.nan if x is None else x for x in row] for row in found], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=relative, atol=1e-6, equal_nan=True)


def within(low, high):
    return st.floats(low, high, allow_subnormal=False)


# ----------------------------------------------------------------------------------------------------- all figures


def test_the_scripts_are_small():
    sizes = {path.name: path.stat().st_size for path in LIVE.glob("*.js")}
    assert sum(sizes.values()) < LARGEST, sizes


@pytest.mark.parametrize(NAME, NAMES)
class TestEveryFigure:
    def test_the_picture_is_what_is_drawn_first(self, page, name):
        drawn, stored = (
            re.findall(r' (?:d|cx|cy|x|y|viewBox)="[^"]*"|>[^<]+<', text)
            for text in (still(page, name), (LIVE / f"{name}.svg").read_text())
        )
        assert len(drawn) > 10
        assert drawn == stored, "run `make stills`"

    @pytest.mark.parametrize("width", WIDTHS)
    def test_fits_and_keeps_its_tracks_in_place(self, page, name, width):
        page.set_viewport_size({"width": width, "height": 800})
        figure = page.locator(f"#{name}")
        page.wait_for_function(
            "n => document.getElementById(n).figure.width === document.getElementById(n).figure.measured()", arg=name
        )
        assert page.evaluate("() => document.scrollingElement.scrollWidth") <= width
        ranges = figure.locator("input[type=range]")
        boxes = "all => all.map(x => [x.offsetLeft, x.offsetTop, x.offsetWidth, x.offsetHeight])"
        too_long = "all => all.filter(x => x.scrollWidth > x.clientWidth).map(x => x.innerText)"
        before = ranges.evaluate_all(boxes)
        for k in range(ranges.count()):
            for key in ("Home", "End"):
                ranges.nth(k).press(key)
                idle(page, name)
                assert figure.locator(".live-control label").evaluate_all(too_long) == []  # numbers stand beside them
        page.evaluate("n => document.getElementById(n).figure.finish()", name)
        assert ranges.evaluate_all(boxes) == before
        pressed = figure.locator("input, button:visible, a, select, .live-handle").evaluate_all(boxes)
        assert all(high >= 44 and wide >= 44 for *_, wide, high in pressed)

    def test_no_text_lies_on_another_or_leaves_the_drawing(self, page, name):
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(
                "n => document.getElementById(n).figure.width === document.getElementById(n).figure.measured()",
                arg=name,
            )
            overlaps = page.evaluate(
                """name => {
                    const texts = [...document.querySelectorAll(`#${name} svg text`)].filter(x => x.textContent.trim());
                    const boxes = texts.map(x => x.getBoundingClientRect());
                    const frame = document.querySelector(`#${name} svg`).getBoundingClientRect();
                    const found = [];
                    boxes.forEach((a, i) => {
                        if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push(texts[i].textContent);
                        boxes.slice(0, i).forEach((b, j) => {
                            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                            if (wide > 1 && high > 5) found.push(texts[i].textContent + ' | ' + texts[j].textContent);
                        });
                    });
                    return found;
                }""",
                name,
            )
            assert overlaps == [], width

    def test_every_slider_has_a_name_and_changes_drawing_and_numbers(self, page, name):
        figure = page.locator(f"#{name}")
        for slider in figure.locator("input[type=range]").all():
            page.evaluate("n => { const {figure} = document.getElementById(n); figure.set(figure.defaults) }", name)
            before = figure.locator("svg").first.inner_html()
            text = slider.get_attribute("aria-valuetext")
            up = slider.evaluate("x => x.value === x.min")
            slider.press("ArrowRight" if up else "ArrowLeft")
            slider.press("PageUp" if up else "PageDown")
            idle(page, name)
            assert slider.get_attribute("aria-valuetext") != text
            output = figure.locator(f"output[for='{slider.get_attribute('id')}']")
            assert output.inner_text() == slider.get_attribute("aria-valuetext")
            assert figure.locator("svg").first.inner_html() != before
            assert figure.locator(f"label[for='{slider.get_attribute('id')}']").count() == 1

    def test_a_frame_holds_few_updates(self, page, name):
        figure = page.locator(f"#{name}")
        page.evaluate(COUNTED, name)
        for control in figure.locator("input[type=range]").all():
            control.press("Home")
            idle(page, name)
            control.press("End")
            idle(page, name)
        for button in figure.locator("button").all():
            button.click()
            idle(page, name)
        frames = page.evaluate("() => window.updatesOfFrames")
        assert len(frames) > 2
        assert 0 < max(frames) <= UPDATES_PER_FRAME

    def test_frame_by_frame_gives_the_same_numbers_as_at_once(self, page, name):
        for slider in page.locator(f"#{name} input[type=range]").all():
            slider.press("PageUp")
        idle(page, name)
        assert shown(page, name) == values(page, name, [state(page, name)])[0]

    def test_says_what_is_seen(self, page, name):
        message, voice = page.locator(f"#{name} .live-text"), page.locator(f"#{name} .live-voice")
        assert message.get_attribute("aria-hidden") == "true"  # else it would be read twice
        assert voice.get_attribute("aria-live") == "polite"
        before = message.inner_text()
        assert len(before) > 20
        assert "NaN" not in before
        assert "undefined" not in before
        for slider in page.locator(f"#{name} input[type=range]").all():
            slider.press("End")
        for select in page.locator(f"#{name} select").all():
            select.select_option(index=1)
        page.wait_for_function(
            "([name, before]) => document.querySelector(`#${name} .live-text`).innerText !== before", arg=[name, before]
        )
        idle(page, name)
        page.wait_for_function(
            "name => new Set([...document.querySelectorAll(`#${name} p[class]`)].map(x => x.textContent)).size === 1",
            arg=name,
        )
        assert voice.bounding_box()["width"] <= 1  # heard, not seen

    def test_what_is_written_follows_with_the_drawing_and_what_is_heard_later(self, page, name):
        page.evaluate(
            """name => {
                const find = selector => document.querySelector(`#${name} ${selector}`);
                const [svg, text, voice] = [find('svg'), find('.live-text'), find('.live-voice')];
                window.seen = [];
                const note = () => window.seen.push([text.textContent, voice.textContent]);
                new MutationObserver(note).observe(svg, {childList: true});
            }""",
            name,
        )
        before = page.locator(f"#{name} .live-text").text_content()
        page.wait_for_function("name => document.querySelector(`#${name} .live-voice`).textContent", arg=name)
        page.evaluate(
            """name => {
                const slider = document.querySelector(`#${name} input[type=range]`);
                slider.value = slider.max;
                slider.dispatchEvent(new Event('input'));
            }""",
            name,
        )
        idle(page, name)
        written, heard = page.evaluate("() => window.seen.at(-1)")
        assert written == page.locator(f"#{name} .live-text").text_content() != before
        assert heard == before

    def test_start_again_restores_what_was_first(self, page, name):
        first = values(page, name, [{}])[0]
        for slider in page.locator(f"#{name} input[type=range]").all():
            slider.press("PageDown")
        idle(page, name)
        assert shown(page, name) != first
        page.locator(f"#{name} button", has_text="Start again").click()
        idle(page, name)
        assert shown(page, name) == first

    def test_refuses_a_name_that_it_does_not_know(self, page, name):
        with pytest.raises(Exception, match="got colour"):
            values(page, name, [{"colour": 1}])

    @pytest.mark.parametrize("theme", BOTH)
    def test_can_be_read(self, page, name, theme):
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        page.evaluate(f"() => document.documentElement.dataset.theme = '{theme}'")
        page.add_style_tag(content="html[data-theme=dark] { background: #121212; color: #ddd }")
        found = axe.run(page, context=f"#{name}", options={"preload": False}).response
        assert found["passes"]
        assert [(v["id"], node["target"]) for v in found["violations"] for node in v["nodes"]] == []

    def test_on_paper_there_is_a_drawing_and_nothing_to_press(self, page, name):
        page.evaluate("() => document.documentElement.dataset.theme = 'dark'")
        page.emulate_media(media="print")
        assert page.locator(f"#{name} svg").first.is_visible()
        assert page.locator(f"#{name} .live-controls").is_hidden()
        colour = page.locator(f"#{name} svg text").first.evaluate("x => getComputedStyle(x).fill")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 128  # dark letters, whatever the theme


@pytest.mark.parametrize(NAME, NAMES)
def test_a_chapter_shows_it_describes_its_picture_and_refers_to_it(name):
    found = []
    for path in LIVE.parent.parent.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        pattern = rf":::{{figure-md}} ([\w-]+)\n:class: live-{name}\n\n!\[(.+)\]\(_static/live/{name}.svg\)\n\n.+\n:::"
        for label, alternative in re.findall(pattern, text):
            assert len(alternative) > 60
            assert f"{{numref}}`{label}`" in text
            found.append(path)
    assert len(found) == 1


def mouse(page, path):
    """Move through places with a pressed button."""
    page.mouse.move(*path[0])
    page.mouse.down()
    for place in path[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def finger(page, path):
    """Move through places with a finger on the screen."""
    session = page.context.new_cdp_session(page)
    for kind, places in (("touchStart", path[:1]), ("touchMove", path[1:]), ("touchEnd", [None])):
        for place in places:
            points = [{"x": place[0], "y": place[1]}] if place else []
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.detach()


def bounds_of(page, *selectors):
    """Return left, top, right and bottom of all that a selector finds, on the screen."""
    script = """selectors => selectors.map(selector => {
        const boxes = [...document.querySelectorAll(selector)].map(x => x.getBoundingClientRect());
        return [...['left', 'top'].map(x => Math.min(...boxes.map(box => box[x]))),
                ...['right', 'bottom'].map(x => Math.max(...boxes.map(box => box[x])))];
    })"""
    return page.evaluate(script, selectors)


@pytest.mark.parametrize(NAME, NAMES)
def test_on_a_phone_picture_and_sliders_are_seen_together(page, name):
    page.set_viewport_size({"width": 360, "height": 660})
    page.wait_for_function("n => document.getElementById(n).figure.narrow", arg=name)
    picture, sliders = bounds_of(page, f"#{name} .live-canvas", f"#{name} .live-control")
    assert max(picture[3], sliders[3]) - min(picture[1], sliders[1]) <= 660


@pytest.mark.parametrize("size", [(740, 360), (667, 375), (568, 320)])
@pytest.mark.parametrize(NAME, NAMES)
def test_on_a_phone_that_lies_controls_stay_beside_the_picture_and_cover_nothing(page, name, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.wait_for_function(
        "n => document.getElementById(n).figure.width === document.getElementById(n).figure.measured()", arg=name
    )
    assert page.evaluate("() => document.scrollingElement.scrollWidth") <= size[0]
    for slider in page.locator(f"#{name} input[type=range]").all():
        slider.press("End")
        assert slider.evaluate("x => x.labels[0].scrollWidth <= x.labels[0].clientWidth")
    page.locator(f"#{name} button", has_text="Start again").click()
    idle(page, name)
    top, height = page.evaluate(
        "n => [window.scrollY + document.getElementById(n).getBoundingClientRect().top, "
        "document.querySelector(`#${n} .live-canvas`).offsetHeight]",
        name,
    )
    for share in (0, 0.3, 0.6, 1):
        page.evaluate("y => window.scrollTo(0, y)", top + share * height)
        parts = (f"#{name} .live-{part}" for part in ("canvas", "controls", "text"))
        picture, controls, text = bounds_of(page, *parts)
        assert max(picture[2], text[2]) <= controls[0]  # beside each other
        assert picture[3] <= text[1]
        if share < 0.5 and size[0] > 600:
            first = bounds_of(page, f"#{name} .live-control:first-child")[0]
            assert 0 <= first[1] < first[3] <= size[1]


@pytest.mark.parametrize("pointer", [mouse, finger])
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("name", "slider"), [("adjoint", "threshold"), ("neuron", "v_th")])
def test_a_threshold_is_dragged_anywhere_on_its_line(page, name, slider, place, pointer):
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("n => document.getElementById(n).figure.narrow", arg=name)
    page.locator(f"#{name}").scroll_into_view_if_needed()
    line = page.locator(f"#{name} .live-handle-y")
    box = line.bounding_box()
    panel = page.evaluate("n => document.getElementById(n).figure.panels.voltage.width", name)
    assert box["width"] == pytest.approx(panel, abs=1)
    assert box["height"] >= 44
    before = state(page, name)
    x, y = box["x"] + place * box["width"], box["y"] + box["height"] / 2
    pointer(page, [(x, y), (x, y - 5), (x, y - 10)])
    idle(page, name)
    after = state(page, name)
    assert after[slider] > before[slider] + 0.05
    assert {k: v for k, v in after.items() if k != slider} == {k: v for k, v in before.items() if k != slider}


@pytest.mark.parametrize("pointer", [mouse, finger])
@pytest.mark.parametrize(NAME, ["adjoint", "neuron", "surrogate"])
def test_mouse_and_finger_drag_a_handle_until_it_is_let_go(page, name, pointer):
    before = state(page, name)
    handle = page.locator(f"#{name} .live-handle").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + 22, box["y"] + 22
    across = "live-handle-y" not in handle.get_attribute("class")
    path = [(x + 20 * k, y) if across else (x, y + 10 * k) for k in range(4)]
    pointer(page, path)
    idle(page, name)
    dragged = state(page, name)
    assert dragged != before
    page.mouse.move(x, y)
    assert state(page, name) == dragged


def test_those_are_the_figures_with_handles(page):
    assert {name for name in NAMES if page.locator(f"#{name} .live-handle").count()} == {
        "adjoint",
        "neuron",
        "surrogate",
    }


@pytest.mark.parametrize(NAME, NAMES)
def test_a_finger_moves_sliders_and_taps_what_can_be_pressed(page, name):
    page.set_viewport_size({"width": 360, "height": 800})
    figure = page.locator(f"#{name}")
    for slider in figure.locator("input[type=range]").all():
        slider.scroll_into_view_if_needed()
        box, before = slider.bounding_box(), state(page, name)
        y = box["y"] + box["height"] / 2
        finger(page, [(box["x"] + share * box["width"], y) for share in (0.3, 0.5, 0.9)])
        idle(page, name)
        assert state(page, name) != before
    for pressed in figure.locator(".live-press:visible, button.live-button").all():
        pressed.scroll_into_view_if_needed()
        before = page.evaluate("name => document.getElementById(name).figure.updates", name)
        pressed.tap()
        page.wait_for_function(
            "([name, before]) => document.getElementById(name).figure.updates > before", arg=[name, before]
        )
        idle(page, name)
        page.evaluate("() => document.activeElement.blur()")


@pytest.mark.parametrize(NAME, NAMES)
def test_the_tab_key_reaches_all_that_can_be_changed_and_shows_where_it_is(page, name):
    figure = page.locator(f"#{name}")
    expected = figure.locator("input, select, button:visible, a, [role=slider][tabindex='0']").count()
    page.evaluate("name => { const f = document.getElementById(name); f.tabIndex = -1; f.focus() }", name)
    reached = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """name => {
                    const now = document.activeElement, style = getComputedStyle(now);
                    const all = [...document.getElementById(name).querySelectorAll('*')];
                    return [all.indexOf(now), style.outlineStyle, parseFloat(style.outlineWidth)];
                }""",
                name,
            )
        )
    assert len({place for place, *_ in reached}) == expected
    assert all(place >= 0 and style != "none" and width >= 2 for place, style, width in reached)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
@pytest.mark.parametrize(NAME, NAMES)
def test_with_reduced_motion_a_change_is_drawn_once(page, name, motion):
    page.emulate_media(reduced_motion=motion)
    page.evaluate(
        """name => {
            window.drawn = 0;
            const svg = document.querySelector(`#${name} svg`);
            new MutationObserver(() => { window.drawn += 1 }).observe(svg, {childList: true});
        }""",
        name,
    )
    page.locator(f"#{name} input[type=range]").first.press("End")
    idle(page, name)
    drawn = page.evaluate("() => window.drawn")
    assert drawn == 1 if motion == "reduce" or name != "race" else drawn > 10


def test_without_javascript_there_are_pictures_and_nothing_to_press(browser, address):
    with browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800}) as context:
        page = context.new_page()
        page.goto(address)
        for name in NAMES:
            assert page.locator(f"#{name} img").bounding_box()["height"] > 200
            assert page.locator(f"#{name} button, #{name} input").count() == 0


def test_what_a_frame_takes_was_recorded():
    """On which processor and browser; it is compared with nothing here, as it differs from machine to machine."""
    recorded = json.loads(RESULTS.read_text())
    assert {"command", "date", "machine", "versions"} <= set(recorded)
    assert recorded["machine"]
    assert "chromium" in recorded["versions"]
    for figures in recorded["ms per frame"].values():
        assert sorted(figures) == NAMES
        assert all(0 < ms["median"] <= ms["95 %"] and ms["frames"] > 1 for ms in figures.values())


# ------------------------------------------------------------------------------------------------ one neuron (ch. 1)

neuron_settings = st.fixed_dictionaries(
    {
        "tau_mem": within(0.4, 50),
        "tau_syn": within(0.4, 50),
        "v_leak": within(-0.5, 1.5),
        "v_th": within(0.1, 2.1),
        "v_reset": within(-1, 1),
        "times": st.lists(st.integers(0, 79), min_size=8, max_size=8),
    }
)


@few
@given(st.lists(neuron_settings, min_size=20, max_size=20))
def test_one_neuron_is_that_of_the_package(shared, many):
    found = values(shared, "neuron", many)
    p = sp.LIFParameters(
        tau_mem_inv=1000 / column(many, "tau_mem"),
        tau_syn_inv=1000 / column(many, "tau_syn"),
        **{name: column(many, name) for name in ("v_leak", "v_th", "v_reset")},
    )
    arrives = torch.stack([torch.bincount(torch.tensor(one["times"]), minlength=80) for one in many], dim=1)
    lif = sp.LIFFeedForwardState(column(many, "v_leak"), torch.zeros(len(many)))
    record = []
    for x in 1.3 * arrives.to(torch.get_default_dtype()):
        z, lif = sp.lif_feed_forward_step(x, lif, p, dt=1e-3)
        record.append((z, lif.v, lif.i))
    z, v, i = (torch.stack(rows, dim=1) for rows in zip(*record, strict=True))
    assert [one["spikes"] for one in found] == [row.nonzero().flatten().tolist() for row in z]
    same([one["voltages"] for one in found], v)
    same([one["currents"] for one in found], i)


def test_a_step_longer_than_twice_the_time_constant_explodes(shared):
    found = values(shared, "neuron", [{"tau_mem": 10, "tau_syn": 0.45}])[0]
    assert max(map(abs, found["currents"])) > 100
    text = shared.locator("#neuron .live-text").inner_text()
    assert "more than twice the synaptic time constant: the current swings ever wider." in text


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
@pytest.mark.parametrize("tau", [0.45, 0.7, 1, 1.01, 10])
def test_the_neuron_says_in_words_what_a_layer_refuses(shared, name, tau):
    values(shared, "neuron", [{name: tau}])
    text = shared.locator("#neuron .live-text").inner_text()
    p = sp.LIFParameters(**{name: 1e-3 * tau})
    if tau > 1:
        sp.LIF(p, dt=1e-3)
        assert "A time step" not in text
        return
    with pytest.raises(ValueError, match="expected dt"):
        sp.LIF(p, dt=1e-3)
    which, what = {"tau_mem": ("membrane", "voltage"), "tau_syn": ("synaptic", "current")}[name]
    does = "swings ever wider" if tau < 0.5 else "goes all the way in one step, or too far"
    assert f"the {which} time constant: the {what} {does}" in text
    assert text.endswith("A layer refuses such a value.")


def test_what_chapter_1_says_of_the_neuron(shared):
    late = [35, 37, 39, 41, 43]
    apart, near = values(shared, "neuron", [{"times": [k, k + d, k + 2 * d, *late]} for k, d in ((5, 3), (5, 2))])
    assert min(apart["spikes"]) > 35
    assert min(near["spikes"]) < 35
    wild = values(shared, "neuron", [{"tau_mem": 0.45, "v_th": 2.1, "times": [5] * 8}])[0]
    assert "swings ever wider" in shared.locator("#neuron .live-text").inner_text()
    assert max(wild["spikes"]) > 60  # long after the input, at 5 ms


def test_arrows_move_an_input_spike_and_choose_another(page):
    spike = page.locator("#neuron .live-handle[role=slider]")
    spike.first.press("ArrowRight")
    assert state(page, "neuron")["times"][:2] == [6, 10]
    spike.first.press("ArrowUp")
    assert spike.nth(1).evaluate("x => x === document.activeElement")
    page.keyboard.press("Home")
    assert state(page, "neuron")["times"][:2] == [6, 0]
    idle(page, "neuron")
    assert spike.nth(1).get_attribute("aria-valuetext") == "0 ms"


# ------------------------------------------------------------------- the surrogate on the staircase of a loss (ch. 1)

surrogate_settings = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["super", "tanh", "heavi_erfc", "circ"]),
        "steepness": within(1, 300),
        "weight": within(0.2, 1.6),
    }
)


@few
@given(st.lists(surrogate_settings, min_size=4, max_size=4))
def test_loss_and_surrogate_gradient_are_those_of_the_package(shared, many):
    for setting, found in zip(many, values(shared, "surrogate", many), strict=True):
        alpha = 1 / setting["steepness"] if setting["method"] == "circ" else setting["steepness"]
        weights = [0.2 + 0.01 * k for k in range(141)] + [setting["weight"]]
        weight = torch.tensor(weights, requires_grad=True)
        arrives = torch.zeros(60, 1, 1)
        arrives[::3] = 1
        layer = sp.LIF(sp.LIFParameters(method=setting["method"], alpha=alpha), dt=1e-3, kernel="reference")
        counts = layer(arrives * weight[:, None])[0].sum(dim=(0, 2))
        loss = (counts - 5) ** 2 / 2
        (gradient,) = torch.autograd.grad(loss.sum(), weight)
        assert found["losses"] == loss[:-1].tolist()
        assert (found["count"], found["loss"]) == (counts[-1], loss[-1])
        same([found["gradients"] + [found["gradient"]]], gradient[None])


def test_the_figure_says_when_a_step_is_cut_off(shared):
    for setting in ({"weight": 0.5}, {"weight": 0.5, "steepness": 300}, {"weight": 1.59, "rate": 0.2}):
        (found,) = values(shared, "surrogate", [setting])
        rate, slope = setting.get("rate", 0.05), found["gradient"]
        step = -rate * min(max(slope, -1), 1)
        assert found["next"] == pytest.approx(min(max(setting["weight"] + step, 0.2), 1.6))
        text = shared.locator("#surrogate .live-text").inner_text()
        assert ("the longest, as the slope is beyond 1" in text) == (abs(slope) > 1)
        assert ("the longest times the slope" in text) == (abs(slope) <= 1)
        silent = [g for g, loss in zip(found["gradients"], found["losses"], strict=True) if loss == 12.5]
        felt = sum(abs(g) > 0.1 for g in silent) / len(silent)
        assert f"Of all weights without a spike, {math.floor(100 * felt + 0.5)} % have a slope beyond 0.1." in text


def test_one_step_moves_the_weight_by_the_longest_step_against_the_gradient(page):
    page.locator("#surrogate button", has_text="One step").click()
    idle(page, "surrogate")
    assert state(page, "surrogate")["weight"] == pytest.approx(0.55)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_ball_rolls_to_five_spikes_and_with_reduced_motion_arrives_at_once(page, motion):
    page.emulate_media(reduced_motion=motion)
    page.locator("#surrogate button", has_text="Let it roll").click()
    idle(page, "surrogate")
    if motion == "no-preference":
        assert len(state(page, "surrogate")["path"]) < 40  # on its way
        page.wait_for_function("() => document.getElementById('surrogate').figure.state.path.length === 40")
        idle(page, "surrogate")
    assert len(state(page, "surrogate")["path"]) == 40
    assert shown(page, "surrogate")["count"] in (4, 5, 6)


# ------------------------------------------------------------------------------------------------ a population (ch. 2)

population_settings = st.fixed_dictionaries(
    {"variation": within(0, 0.8), "median": within(8, 30), "current": within(0.8, 3)}
)


@few
@given(st.lists(population_settings, min_size=2, max_size=2))
def test_the_population_is_that_of_the_package(shared, many):
    for setting, found in zip(many, values(shared, "population", many), strict=True):
        shares = (torch.arange(60) + 0.5) / 60
        deviates = math.sqrt(2) * torch.erfinv(2 * shares - 1)
        taus = setting["median"] * torch.exp(math.sqrt(math.log1p(setting["variation"] ** 2)) * deviates)
        same([found["taus"]], taus[None], relative=1e-9)
        taus = torch.tensor(found["taus"], dtype=torch.float64)
        p = {"tau_mem_inv": 1000 / taus}
        arrives = torch.zeros(800, 1, 60)
        arrives[80], arrives[81:] = setting["current"], setting["current"] * 2.5e-4 * 200
        spikes = sp.LIF(sp.LIFParameters(**p), dt=2.5e-4)(arrives)[0][:, 0]
        assert found["spikes"] == [one.nonzero().flatten().tolist() for one in spikes.T]
        share = spikes.unflatten(0, (-1, 4)).sum(1).mean(1)
        same([found["share"]], share[None])
        assert found["deviation"] == pytest.approx(share[70:].std().item())
        pulse = torch.zeros(150, 1, 60)
        pulse[0] = 1
        voltages = sp.LI(sp.LIParameters(**p), dt=1e-3)(pulse)[0]
        same([found["tail"]], voltages[:, 0].mean(1)[None])


def test_the_population_opens_equal_and_moving_its_spread_breaks_the_beat(page):
    ticks = "() => [...document.querySelectorAll('#population text.tick.end')].map(x => x.textContent).filter(Boolean)"
    assert state(page, "population")["variation"] == 0
    first = shown(page, "population")
    assert len(set(map(tuple, first["spikes"]))) == 1
    assert max(first["share"]) == pytest.approx(1)
    assert page.evaluate(ticks)[:2] == ["10", "0"]  # one time constant is written once
    assert "fire together" in page.locator("#population .live-text").inner_text()
    page.locator("#population input[type=range]").first.press("ArrowRight")
    idle(page, "population")
    assert shown(page, "population")["deviation"] < first["deviation"]
    assert len(set(page.evaluate(ticks)[:3])) == 3
    text = page.locator("#population .live-text").inner_text()
    assert "as much is left" in text
    assert "1 times" not in text


def test_five_percent_of_spread_leave_less_than_a_quarter_of_the_swings_and_more_at_a_stronger_current(shared):
    many = [{"variation": v, "median": 10, "current": current} for current in (1.3, 2, 3) for v in (0, 0.05)]
    deviations = [found["deviation"] for found in values(shared, "population", many)]
    left = [different / equal for equal, different in zip(deviations[::2], deviations[1::2], strict=True)]
    assert left == sorted(left)
    assert left[0] < 1 / 4
    assert left[-1] > 1 / 2


def test_a_spread_population_is_steady_and_remembers_longer_than_an_equal_one(shared):
    equal, different = values(shared, "population", [{"variation": v, "median": 10, "current": 1.3} for v in (0, 0.5)])
    assert different["deviation"] < equal["deviation"] / 4
    assert different["tail"][100] > 10 * equal["tail"][100]
    assert equal["share"] == pytest.approx(equal["equalShare"])


# ------------------------------------------------------------------------------------- several windows of input (ch. 6)

window_settings = st.fixed_dictionaries(
    {
        "count": st.integers(1, 8),
        "windows": st.integers(2, 6),
        "middle": within(5, 60),
        "spread": within(1, 10),
        "groups": st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6),
    }
)


@few
@given(st.lists(window_settings, min_size=5, max_size=5))
def test_filters_and_what_a_readout_makes_of_them(shared, many):
    for setting, found in zip(many, values(shared, "windows", many), strict=True):
        count, windows = setting["count"], setting["windows"]
        taus = spaced(setting["middle"], setting["spread"], count).numpy()
        same([found["taus"]], torch.tensor(taus)[None])
        filters = memory.temporal_filters(4, found["taus"], 20 * windows)
        same(found["filters"], torch.tensor(filters))

        unit = filters / np.linalg.norm(filters, axis=1, keepdims=True)
        back = np.repeat(np.eye(windows), 20, axis=1)[:, ::-1]  # lags go back in time
        held = unit @ back.T / np.sqrt(20)  # of each window in each state
        weights = np.linalg.solve(held @ held.T + count * 1e-4 * np.eye(count), held).T
        same(found["sums"], torch.tensor(np.sqrt(20) * weights @ unit), relative=1e-5)
        kept = weights @ held
        noise = 0.01 * np.sqrt(count) * np.linalg.norm(weights, axis=1)
        inputs = 2 * (np.arange(2**windows)[:, None] >> np.arange(windows) & 1) - 1
        right = norm.cdf(inputs * (inputs @ kept.T) / noise).mean(axis=0)
        assert found["accuracies"] == pytest.approx(right.tolist(), abs=1e-5)
        given_groups = np.array(setting["groups"][:windows])
        assert found["answers"] == pytest.approx((kept @ given_groups).tolist(), abs=1e-5)
        states = unit @ np.repeat(given_groups, 20)[::-1] / np.abs(unit).sum(axis=1)
        assert found["states"] == pytest.approx(states.tolist(), abs=1e-6)


def test_what_chapter_6_says_of_the_windows(shared):
    many = [{"count": n, "windows": 4, "middle": 20, "spread": 7} for n in range(1, 9)]
    different = [found["remembered"] for found in values(shared, "windows", many)]
    assert different[0] == pytest.approx(1, abs=0.01)
    assert different[1] < different[2] - 0.5 < different[3] - 1
    assert all(3.7 < remembered < 3.9 for remembered in different[3:])
    (equal,) = values(shared, "windows", [{"count": 8, "windows": 4, "middle": 20, "spread": 1}])
    text = shared.locator("#windows .live-text").inner_text()
    assert text.startswith(
        "8 neurons have a τ syn of 20 steps. In all, a readout remembers 1.0 of 4 windows: a window counts"
    )
    assert equal["remembered"] == pytest.approx(1, abs=0.01)
    (drawn,) = values(shared, "windows", [{"count": 3, "windows": 4, "middle": 20, "spread": 7}])
    assert [round(100 * share) for share in drawn["accuracies"]] == [87, 75, 100, 100]  # the picture's text says so


def test_pressing_a_window_changes_its_group(page):
    window = page.locator("#windows .live-press:visible").first
    assert "group A" in window.get_attribute("aria-label")
    window.press("Enter")
    idle(page, "windows")
    assert "group B" in window.get_attribute("aria-label")
    assert state(page, "windows")["groups"][0] == -1
    assert window.bounding_box()["height"] >= 44


# ------------------------------------------------------------------------- the experiment, seed by seed (ch. 6)

KINDS = list(benefit_design.KINDS)
CORE_SEEDS = 20
grid_settings = st.fixed_dictionaries(
    {
        "task": st.sampled_from(benefit_analysis.TASKS),
        "kind": st.sampled_from(KINDS),
        "other": st.sampled_from(KINDS),
        "measure": st.sampled_from(["accuracy", "rate", "tau_syn", "tau_mem"]),
        "picked": st.lists(st.integers(0, CORE_SEEDS - 1), min_size=1, max_size=CORE_SEEDS, unique=True),
        "draws": st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=3, unique=True), max_size=3),
    }
)


def stored(task, kind, measure):
    """Return what a kind reached, by seed, straight from the lines of the results, and whether all seeds have run."""
    lines = {stage: (FOLDER / f"{stage}.jsonl").read_text().splitlines() for stage in ("core", "flat")}
    found = {stage: {} for stage in lines}
    for stage, texts in lines.items():
        for line in map(json.loads, texts):
            if line["task"] == task and line["condition"].removesuffix(", 32 epochs") in KINDS:
                found[stage].setdefault(line["condition"].removesuffix(", 32 epochs"), {})[line["seed"]] = line
    complete = all(len(found["core"].get(one, ())) == CORE_SEEDS for one in KINDS)
    split = "test" if complete else "validation"
    numbers = {}
    for seed, line in sorted(found["core" if complete else "flat"][kind].items()):
        result, learned = line["result"], line["result"]["learned"].get(measure)
        if measure == "accuracy":
            numbers[seed] = 100 * result[split]["accuracy"]
        elif measure == "rate":
            numbers[seed] = 100 * float(np.mean(result[split]["rate"]))
        else:
            numbers[seed] = learned[0][10] if learned else line["cell"]["neurons"][measure]
    return numbers, complete


def bounds(contrast):
    return [contrast["mean"], contrast["low"], contrast["high"]]


@few
@given(st.lists(grid_settings, min_size=10, max_size=10))
def test_differences_and_intervals_are_those_of_the_package(shared, many):
    for setting, found in zip(many, values(shared, "grid", many), strict=True):
        ours, theirs = (stored(setting["task"], setting[k], setting["measure"])[0] for k in ("kind", "other"))
        differences = [ours[seed] - theirs[seed] for seed in ours]
        assert found["differences"] == pytest.approx(differences, abs=1e-3)
        picked = [k for k in setting["picked"] if k < len(differences)] or [0, 1, 2]
        assert found["picked"] == picked
        for places, shown in (
            (picked, found["now"]),
            (range(len(differences)), found["all"]),
            *zip(setting["draws"], found["draws"], strict=True),
        ):
            numbers = [found["differences"][k] for k in places]
            if len(numbers) == 1:
                assert bounds(shown) == [numbers[0], -math.inf, math.inf]
            else:
                assert bounds(shown) == pytest.approx(list(mean_contrast(numbers)[:3]), abs=1e-9)


def test_the_explorer_says_which_tasks_are_complete(shared):
    for task in benefit_analysis.TASKS:
        numbers, complete = stored(task, KINDS[0], "accuracy")
        title = shared.locator(f"#grid option[value='{task}']").inner_text()
        assert title == f"{benefit_analysis.task_name(task)} ({'' if complete else 'incomplete: '}{len(numbers)} seeds)"
        assert shared.evaluate("task => liveFigures.grid.tasks[task].seeds", task) == list(numbers)
        note = shared.evaluate("task => liveFigures.grid.tasks[task].note", task)
        assert ("incomplete" in note) == (not complete)


def test_complete_tasks_come_first(shared):
    titles = shared.locator("#grid-task option").all_inner_texts()
    assert len(titles) == len(benefit_analysis.TASKS)
    marked = ["incomplete" in title for title in titles]
    assert marked == sorted(marked)


def test_what_rounds_to_zero_has_no_sign(shared):
    texts = ""
    for task in benefit_analysis.TASKS:
        values(shared, "grid", [{"task": task, "kind": MEM, "other": SHARED}])
        texts += " ".join(shared.locator("#grid svg text, #grid .live-text").all_text_contents())
    assert "0.0" in texts
    assert not re.search("[+\u2212-]0\\.0(?!\\d)", texts)


def test_who_wins_can_be_chosen_where_the_text_says_it(shared):
    both = {"task": "xor, recurrent", "kind": MEM, "other": EQUAL}
    differences = values(shared, "grid", [both])[0]["differences"]
    text = shared.locator("#grid .live-text")
    for seed, sign in ((np.argmax(differences), 1), (np.argmin(differences), -1)):
        (found,) = values(shared, "grid", [both | {"picked": [int(seed)]}])
        assert sign * found["now"]["mean"] > 0
        assert shared.locator("#grid svg rect.ink").count() == 1
        assert "and one seed has no interval" in text.inner_text()
    strong = {"task": "windows 4", "kind": SYN, "other": EQUAL}
    for setting, winner in ((strong, "different τ syn"), (strong | {"kind": EQUAL, "other": SYN}, "different τ syn")):
        values(shared, "grid", [setting])
        assert f"so that {winner} is higher" in text.inner_text()


def test_a_task_of_which_seeds_are_missing_is_called_incomplete(tmp_path):
    for stage in ("core", "flat"):
        lines = (FOLDER / f"{stage}.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if stage == "flat" or json.loads(line)["seed"] <= 7]
        (tmp_path / f"{stage}.jsonl").write_text("".join(kept))
    found = benefit_explorer.seed_by_seed(benefit_analysis.Results(tmp_path), "windows 4")
    assert found["title"] == "four windows (incomplete: 3 seeds)"
    assert "of the 20 seeds of the experiment 7 have run" in found["note"]
    assert found["seeds"] == [1101, 1102, 1103]


def test_an_arrow_says_that_an_interval_goes_on(shared):
    def arrows(picked):
        state = {"picked": picked, "draws": []}
        return shared.evaluate(
            """state => {
                const {figure} = document.getElementById('grid');
                figure.set({...figure.defaults, ...state});
                const {now, differences} = figure.result;
                const far = 2 * Math.max(...differences.map(Math.abs));
                const marks = [...figure.drawing.querySelectorAll('text')].map(text => text.textContent);
                return [marks.filter(mark => mark === '◂').length, marks.filter(mark => mark === '▸').length,
                    now.low / far, now.high / far];
            }""",
            state,
        )

    left, right, low, high = arrows([4, 5])
    assert (left, right) == (1, 1)
    assert low < -1.5
    assert high > 1.5
    left, right, low, high = arrows([0, 1, 2, 3, 4, 5])
    assert (left, right) == (0, 0)
    assert -1 < low < high < 1


def test_what_chapter_6_says_of_seeds(shared):
    learned = {"task": "windows 4", "kind": LEARNS, "other": SYN, "measure": "accuracy"}
    (found,) = values(shared, "grid", [{**learned, "count": 3}])
    assert [format(x, ".1f") for x in bounds(found["all"])] == ["1.5", "1.3", "1.8"]
    assert [format(x, ".1f") for x in bounds(found["now"])] == ["1.2", "0.8", "1.5"]  # the picture's text
    assert [format(f(found["differences"]), ".1f") for f in (min, max)] == ["0.5", "2.5"]
    for count, low, high in ((3, 0.55, 0.65), (2, 0.15, 0.25)):  # "about six of ten", "one of five"
        some = np.array(list(itertools.combinations(found["differences"], count)))
        half = student.ppf(0.975, count - 1) * some.std(axis=1, ddof=1) / count**0.5
        assert low < np.mean(some.mean(axis=1) > half) < high
    both = [{**learned, "task": "xor, recurrent", "kind": MEM, "other": EQUAL}]
    differences = values(shared, "grid", both)[0]["differences"]
    assert [round(min(differences)), round(max(differences))] == [-27, 26]


def test_drawing_seeds_picks_some_and_keeps_what_was_drawn(page):
    page.locator("#grid button", has_text="Draw 20 times").click()
    idle(page, "grid")
    draws = state(page, "grid")["draws"]
    assert len(draws) == 20
    assert all(len(set(draw)) == 3 and set(draw) <= set(range(20)) for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 10
    assert state(page, "grid")["picked"] == draws[0]
    page.locator("#grid button", has_text="Draw seeds").click()
    idle(page, "grid")
    assert state(page, "grid")["draws"][1:] == draws[:-1]
    page.wait_for_function("() => document.querySelector('#grid .live-text').innerText.includes('Of 20 draws')")
    saw = sum(one["low"] > 0 or one["high"] < 0 for one in shown(page, "grid")["draws"])
    assert f"Of 20 draws {saw} saw a difference." in page.locator("#grid .live-text").inner_text()


def test_pressing_a_seed_takes_it_in_or_leaves_it_out(page):
    seeds = page.locator("#grid .live-press")
    assert "taken in" in seeds.nth(1).get_attribute("aria-label")
    seeds.nth(1).press("Enter")
    seeds.nth(6).click()
    idle(page, "grid")
    assert shown(page, "grid")["picked"] == [0, 2, 6]
    assert "left out" in seeds.nth(1).get_attribute("aria-label")
    for k in (0, 2, 6):  # the last one stays
        seeds.nth(k).click()
    idle(page, "grid")
    assert shown(page, "grid")["picked"] == [6]
    seeds.nth(0).click()
    idle(page, "grid")
    assert shown(page, "grid")["picked"] == [6, 0]


def test_a_link_leads_to_the_view_and_a_broken_one_to_the_first(page, address):
    first = state(page, "grid")
    page.locator("#grid select").first.select_option("xor, recurrent")
    page.locator("#grid .live-press").nth(1).click()
    idle(page, "grid")
    link = page.locator("#grid a", has_text="Link to this view")
    link.click()
    view = link.get_attribute("href")
    assert page.url == address + view
    wanted, result = state(page, "grid"), shown(page, "grid")
    assert wanted != first
    for broken in ("?", "?task=%22no+task%22", "?count=x", "?picked=1", "?colour=1"):
        page.goto(f"{address}#grid{broken}")
        page.reload()
        assert state(page, "grid") == first
    other = page.context.new_page()
    other.goto(address + view)
    idle(other, "grid")
    assert (state(other, "grid"), shown(other, "grid")) == (wanted, result)
    assert abs(other.locator("#grid").bounding_box()["y"]) < 50
    other.close()


# ------------------------------------------------------------------------------------------ the adjoint method (ch. 7)

adjoint_settings = st.fixed_dictionaries(
    {"weight": within(0.5, 8), "threshold": within(0.2, 1.4), "which": st.sampled_from(["1", "2", "3"])}
)


@few
@given(st.lists(adjoint_settings, min_size=8, max_size=8))
def test_spikes_and_exact_gradients_are_those_of_the_package(shared, many):
    for setting, found in zip(many, values(shared, "adjoint", many), strict=True):
        v_th = torch.nn.Parameter(torch.tensor(float(setting["threshold"])))
        p = sp.LIFParameters(tau_mem_inv=60.0, tau_syn_inv=140.0, v_leak=0.1, v_th=v_th)
        layer = sp.LIF(p, dt=1e-4, gradient=sp.Adjoint())
        arrives = torch.zeros(300, 1, 1)
        arrives[20] = 1
        start = sp.LIFFeedForwardState(torch.full((1, 1), 0.1), torch.zeros(1, 1))
        z, _ = layer(setting["weight"] * arrives, start)
        assert found["spikes"] == z.flatten().nonzero().flatten().tolist()
        time = sp.spike_times(z, 1e-4, number=3, missing=math.inf)[int(setting["which"]) - 1].squeeze()
        if found["spike"] is None:
            assert time.isinf()
            assert set(found["ofV"]) == {0}
            continue
        assert found["spike"] == round(time.item() / 1e-4) - 1
        time.backward()
        of_threshold = 1e3 * layer.p.v_th.grad.item()  # ms
        assert found["ofThreshold"] == pytest.approx(of_threshold, rel=1e-6, abs=1e-9)


def test_what_a_little_more_would_do_is_said_by_the_tangent(shared):
    for which in ("1", "2"):
        (found,) = values(shared, "adjoint", [{"which": which}])
        text = shared.locator("#adjoint .live-text").inner_text()
        earlier, later = -0.01 * found["ofV"][found["spike"]], 0.01 * found["ofThreshold"]
        assert f"would come {earlier:.2g} ms earlier if the voltage before it were higher by 0.01" in text
        assert f"and {later:.2g} ms later if the threshold were" in text
        jump = f"jumps from 0 to \u2212{100 * earlier:.2g}"
        assert jump in shared.locator("#adjoint svg").first.inner_html()


def test_the_tangent_of_a_spike_time_explodes_where_the_membrane_grazes(shared):
    far, near = values(shared, "adjoint", [{"weight": 5, "threshold": v, "which": "1"} for v in (0.5, 1.2)])
    assert near["ofThreshold"] > 5 * far["ofThreshold"] > 0
    assert "grazes" in shared.locator("#adjoint .live-text").inner_text()
    (none,) = values(shared, "adjoint", [{"weight": 5, "threshold": 1.4, "which": "1"}])
    assert none["spike"] is None
    assert "no gradient" in shared.locator("#adjoint .live-text").inner_text()


# ------------------------------------------------------------------------------- the race of parametrisations (ch. 5)


class Share(torch.nn.Module):
    """The share of the way to its target that a membrane goes in one step, cut off in the forward pass or not."""

    def __init__(self, cut):
        super().__init__()
        self.cut = cut

    def forward(self, x):
        return (x.clamp(1e-3, 0.999) if self.cut else x) / 1e-3

    def right_inverse(self, rate):
        return rate * 1e-3


WAYS = {
    "raw": "none",
    "raw, own learning rate": "none",
    "clamp": Share(cut=True),
    "projection": Share(cut=False),
    "softplus": "softplus",
    "decay": "decay",
    "log": "log",
}


def learn(name, setting, steps=40):
    """Return the rates on the way, up to one that is not valid."""
    pulse = torch.zeros(150, 1, 1)
    pulse[0] = 1
    with torch.no_grad():
        wanted = sp.LI(sp.LIParameters(tau_mem_inv=1000 / setting["target"]))(pulse)[0]
    layer = sp.LI(sp.LIParameters(tau_mem_inv=sp.Learned(1000 / setting["start"], WAYS[name])), size=1)
    stored = layer.p.raw("tau_mem_inv")
    optimizer = torch.optim.Adam([stored], lr=setting["rate"] * (100 if "own" in name else 1))
    rates = [layer.p.tau_mem_inv.item()]
    while len(rates) <= steps and 0 < rates[-1] < 1000:
        optimizer.zero_grad()
        (layer(pulse)[0] - wanted).square().sum().backward()
        optimizer.step()
        if name == "projection":
            with torch.no_grad():
                stored.clamp_(1e-3, 0.999)
        rates.append(layer.p.tau_mem_inv.item())
    return rates


race_settings = st.fixed_dictionaries({"start": within(3, 200), "target": within(3, 200), "rate": within(0.01, 1)})


@few
@given(race_settings)
def test_every_runner_takes_the_steps_that_pytorch_takes(shared, setting):
    (found,) = values(shared, "race", [setting])
    for name, path in found["paths"].items():
        expected = learn(name, setting)
        same([[point["value"] for point in path[: len(expected)]]], torch.tensor([expected]))
        assert len(path) in (len(expected), 121)


def test_every_runner_is_told_apart_and_named_in_its_colour(page):
    lines, texts = page.evaluate(
        """() => {
            const all = selector => [...document.querySelectorAll(`#race svg ${selector}`)];
            const [lines, texts] = [all('path.thin, path.bold'), all('text')];
            return [lines.map(x => [getComputedStyle(x).strokeDasharray, getComputedStyle(x).stroke]),
                    texts.map(x => [x.textContent, getComputedStyle(x).fill])];
        }"""
    )
    looks = list(dict.fromkeys(map(tuple, lines)))
    assert len(looks) == len(WAYS)
    assert len(lines) == 2 * len(WAYS)  # one line in the graph and one beside its name
    names = ["learning rate 10" if "own" in name else name for name in WAYS]
    assert [text for text in texts if text[0] in names] == [
        [name, colour] for name, (_, colour) in zip(names, looks, strict=True)
    ]
    page.locator("#race-rate").press("End")
    idle(page, "race")
    assert "learning rate 100" in page.locator("#race svg").first.inner_html()


def test_what_chapter_5_says_of_the_race(shared):
    (first,) = values(shared, "race", [{"start": 10, "target": 50, "rate": 0.1}])
    ends = {name: 1000 / path[-1]["value"] for name, path in first["paths"].items()}
    assert ends["raw"] < 13
    assert ends["clamp"] == pytest.approx(1000)
    assert all(ends[name] == pytest.approx(50, rel=0.05) for name in ("projection", "softplus", "decay", "log"))
    own = "raw, own learning rate"
    (fast,) = values(shared, "race", [{"start": 10, "target": 50, "rate": 1, "map": own}])
    assert fast["paths"][own][-1]["value"] <= 0
    assert "no neuron" in shared.locator("#race .live-text").inner_text()
    ends = {name: 1000 / path[-1]["value"] for name, path in fast["paths"].items()}
    assert all(ends[name] == pytest.approx(50, rel=0.05) for name in ("raw", "softplus", "decay", "log"))
    assert abs(ends["projection"] - 50) > 10
    assert ends["clamp"] == pytest.approx(1000)
