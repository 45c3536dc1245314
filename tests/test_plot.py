import base64
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from snnparams import plot

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_style_is_found():
    with plt.rc_context():
        plot.use_style()
        assert plt.rcParams["axes.spines.top"] is False


def test_raster_marks_every_spike_at_its_time():
    spikes = torch.zeros(10, 3)
    spikes[2, 0] = spikes[7, 1] = 1
    _, ax = plt.subplots()
    plot.raster(ax, spikes, dt=2e-3)
    assert ax.collections[0].get_offsets().tolist() == [[4.0, 0.0], [14.0, 1.0]]
    assert ax.get_xlabel() == "time (ms)"
    with pytest.raises(ValueError, match=r"spikes: expected shape \(T, N\), got \(10, 3, 1\)"):
        plot.raster(ax, spikes[..., None])


def test_before_and_after_share_their_bins_and_refuse_one_memory():
    after = torch.nn.Parameter(torch.randn(50))
    before = after.detach().clone()
    with torch.no_grad():
        after += 3
    _, ax = plt.subplots()
    plot.before_after(ax, before, after, "x (mV)", bins=8)
    assert sum(patch.get_height() for patch in ax.patches[:8]) == 50
    with pytest.raises(ValueError, match="before: expected a copy"):
        plot.before_after(ax, after.detach(), after, "x (mV)")


def test_parameter_history_shows_the_median_and_the_middle_of_the_neurons():
    records = torch.stack([torch.arange(101.0), 2 * torch.arange(101.0)])
    _, ax = plt.subplots()
    plot.parameter_history(ax, records.tolist(), "x (ms)")
    assert ax.lines[0].get_ydata().tolist() == [50, 100]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (5, 190)
    with pytest.raises(ValueError, match=r"records: expected shape \(epochs \+ 1, N\), got \(2,\)"):
        plot.parameter_history(ax, [1.0, 2.0], "x")


def test_recovery_draws_found_against_true_values_and_where_they_would_be_equal():
    _, ax = plt.subplots()
    plot.recovery(ax, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 4.0]), "x")
    line, dots = ax.lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [1, 4]
    assert dots.get_ydata().tolist() == [1, 3, 4]
    assert ax.get_ylabel() == "recovered x"
    with pytest.raises(ValueError, match=r"found: expected shape \(3,\), got \(2,\)"):
        plot.recovery(ax, torch.ones(3), torch.ones(2), "x")


def test_a_copy_for_plotting_does_not_change_with_the_parameter():
    p = torch.nn.Parameter(torch.zeros(3))
    copy = plot.to_numpy(p)
    with torch.no_grad():
        p += 1
    assert copy.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "form", [torch.Tensor.to_sparse, torch.Tensor.numpy, torch.Tensor.bfloat16, torch.Tensor.tolist]
)
def test_figures_of_whatever_holds_numbers(form):
    spikes, values = torch.zeros(10, 3), torch.tensor([1.0, 2.0, 4.0])
    spikes[2, 0] = spikes[7, 1] = 1
    _, axes = plt.subplots(1, 3)
    plot.raster(axes[0], form(spikes))
    assert axes[0].collections[0].get_offsets().tolist() == [[2.0, 0.0], [7.0, 1.0]]
    plot.before_after(axes[1], form(values), form(2 * values), "x")
    assert sum(bar.get_height() for bar in axes[1].patches[:20]) == 3
    plot.recovery(axes[2], form(values), form(2 * values), "x")
    assert axes[2].lines[1].get_ydata().tolist() == [2.0, 4.0, 8.0]
    with pytest.raises(ValueError, match=re.escape("spikes: expected shape (T, N), got (3,)")):
        plot.raster(axes[0], form(values))


def test_arrays_of_one_memory_are_refused_too():
    values = torch.ones(4)
    for before, after in ((values, values.numpy()), (values.numpy(), values.numpy()), (values.detach(), values)):
        with pytest.raises(ValueError, match="got the same memory"):
            plot.before_after(plt.subplots()[1], before, after, "x")
    assert isinstance(plot.to_numpy([1, 2]), np.ndarray)


def test_tables_are_tables_and_text():
    table = plot.Table(["", "a < b"], [["one", "1"], ["two", "22"]], "note & more")
    assert repr(table) == "     a < b\none      1\ntwo     22\nnote & more"
    html = table._repr_html_()
    assert '<tr><td></td><th scope="col" class="number">a &lt; b</th></tr>' in html  # without a word it is no heading
    assert '<tr><th scope="row">two</th><td data-column="a &lt; b" class="number">22</td></tr>' in html
    assert "<p>note &amp; more</p>" in html
    with pytest.raises(ValueError, match=r"rows: expected 2 cells, got \['one'\]"):
        plot.Table(["", "a"], [["one"]])


def cells(column):
    """Return what a page shows of a column, and whether on the right."""
    html = plot.Table(["row", "column"], [[str(k), cell] for k, cell in enumerate(column)])._repr_html_()
    assert html.count('<td data-column="column"') == len(column)
    return re.findall(r"<td[^>]*>(.*?)</td>", html), 'class="number"' in html


def test_decimal_points_stand_below_each_other():
    digit, point = "\u2007", "\u2008"  # spaces as wide as these
    assert cells(["0.25", "-3", "22,750.1", "\u2013"]) == (
        ["0.25", f"\u22123{point}{digit * 2}", f"22,750.1{digit}", "\u2013"],
        True,
    )
    assert cells(["7", "12"]) == (["7", "12"], True)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (
            ["+11.6 (+11.3 to +11.9)", "-0.4 (-0.7 to -0.1)"],
            ["+11.6 (+11.3 to +11.9)", "\u22120.4 (\u22120.7 to \u22120.1)"],
        ),
        (["64 KiB", "not run"], ["64 KiB", "not run"]),
        (["1e-3", "2.4e-03"], ["1e-3", "2.4e-03"]),
        (["9 / 22", "< 0.1"], ["9 / 22", "&lt; 0.1"]),
    ],
)
def test_numbers_with_a_unit_or_an_interval_stand_on_the_right(column, shown):
    assert cells(column) == (shown, True)


@pytest.mark.parametrize("column", [["yes", "no"], ["-", ""], ["1", "one"], ["tau_mem-1", "x"], []])
def test_words_stand_on_the_left_as_they_are(column):
    assert cells(column) == (column, False)


def test_a_table_whose_rows_are_sentences_says_so():
    def kind(name):
        return re.findall('class="(table [a-z ]+)"', plot.Table(["", "a"], [[name, "1"]])._repr_html_())

    assert kind("Learning one per neuron beats one value for all.") == ["table results stacked"]
    assert kind("one for all, learned") == ["table results"]


def test_a_table_that_is_broader_than_a_phone_says_so():
    rows = [["four windows: different time constants", "+11.6 (+11.3 to +11.9)", "95.6"], ["equal", "\u2013", "84.0"]]
    narrow, broad = (["", "minus equal", *more] for more in (["correct"], ["correct", "could be seen", "seeds"]))
    assert 'class="table results"' in plot.Table(narrow, rows)._repr_html_()
    html = plot.Table(broad, [[*row, "0.4", "20 of 20 have run"] for row in rows])._repr_html_()
    assert 'class="table results stacked"' in html
    assert '<td data-column="minus equal" class="number dash">\u2013</td>' in html  # left out there


def test_a_notebook_draws_two_pixels_for_each_point(monkeypatch):
    program = (
        "import matplotlib.pyplot as plt\n"
        "from snnparams import plot\n"
        "plot.use_style()\n"
        "plt.subplots(figsize=(2, 1))\n"
        "plt.show()"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(program)])
    monkeypatch.delenv("MPLBACKEND", raising=False)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    png = next(x.data["image/png"] for x in notebook.cells[0].outputs if "image/png" in x.get("data", {}))
    width, _ = Image.open(io.BytesIO(base64.b64decode(png))).size
    assert width > 1.8 * 2 * plt.rcParamsDefault["figure.dpi"]


def test_fast_neurons_are_yellow_and_slow_ones_blue():
    yellow, green, blue, faster, slower = plot.time_constant_colors([3e-3, 9.5e-3, 30e-3, 1e-4, 3.0])
    assert yellow[0] > yellow[1] > yellow[2]
    assert green[1] > max(green[0], green[2])
    assert blue[2] > blue[1] > blue[0]
    assert (faster, slower) == (yellow, blue)
    with pytest.raises(ValueError, match="taus: expected positive time constants, got -1"):
        plot.time_constant_colors([-1.0, 5.0])


def test_a_time_constant_has_one_colour_beside_whatever_others():
    assert plot.time_constant_colors([10e-3])[0] == plot.time_constant_colors([2e-3, 10e-3, 50e-3])[1]
    assert plot.time_constant_colors([2.0, 300.0], fastest=2.0, slowest=300.0) == plot.time_constant_colors(
        [3e-3, 30e-3]
    )
    for ends in ((1.0, 1.0), (2.0, 1.0), (0.0, 1.0)):
        with pytest.raises(ValueError, match=r"fastest: expected a time constant below slowest, got"):
            plot.time_constant_colors([1.0], *ends)


def test_every_meaning_has_a_colour_of_its_own():
    with plt.rc_context():
        plot.use_style()
        drawn = {name: matplotlib.colors.to_hex(color) for name, color in plot.COLORS.items()}
    assert len(set(drawn.values())) == len(drawn)
