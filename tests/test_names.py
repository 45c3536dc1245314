"""What `snnparams` offers by name: what users need, and nothing by accident."""

import inspect
import subprocess
import sys

from notebooks import ROOT

import snnparams as sp


def test_the_package_completes_to_what_it_offers():
    assert dir(sp) == sorted([*sp.__all__, "__version__"])
    assert len(set(sp.__all__)) == len(sp.__all__)
    for name in sp.__all__:
        assert inspect.getdoc(getattr(sp, name)), name


def test_nothing_is_there_that_is_not_offered_but_the_folders():
    folders = {path.stem for path in (ROOT / "snnparams").iterdir()}
    there = {name for name in vars(sp) if not name.startswith("_")}
    assert there <= set(sp.__all__) | folders


def test_an_unknown_name_is_none():
    assert not hasattr(sp, "thresholds")
    assert not hasattr(sp, "threshold")


def test_modules_that_are_slow_to_import_are_loaded_when_they_are_used():
    program = (
        "import sys, snnparams as sp\n"
        "slow = {'matplotlib', 'torchvision', 'sklearn', 'scipy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "assert sp.tasks.windows and sp.plot and sp.models.mnist_model\n"
        "assert {'matplotlib', 'torchvision'} <= set(sys.modules)\n"
        "from snnparams import plot, tasks, models\n"
        "assert plot is sp.plot"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
