"""What `snnparams` offers by name: what users need, and nothing by accident."""

import inspect
import subprocess
import sys

import pytest
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


MODULES = [getattr(sp, name) for name in sp.__all__ if inspect.ismodule(getattr(sp, name))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_its_modules_complete_to_what_they_offer(module):
    offered = {name: getattr(module, name) for name in dir(module)}
    for name, value in offered.items():
        assert not name.startswith("_"), name
        assert getattr(value, "__module__", module.__name__).startswith(("snnparams", "types", "typing")), name
        assert not inspect.ismodule(value), name
    own = {name for name, value in vars(module).items() if inspect.isclass(value) or inspect.isfunction(value)}
    own = {name for name in own if vars(module)[name].__module__ == module.__name__}
    assert {name for name in own if not name.startswith("_")} <= set(offered)


def test_every_neuron_is_completed_to():
    kinds = [kind for kind in vars(sp.neurons).values() if isinstance(kind, type) and issubclass(kind, sp.Neuron)]
    assert {kind.__name__ for kind in kinds} <= set(dir(sp.neurons))


def test_an_unknown_name_is_none():
    assert not hasattr(sp, "thresholds")
    assert not hasattr(sp, "threshold")


def test_modules_that_are_slow_to_import_are_loaded_when_they_are_used():
    program = (
        "import sys, snnparams as sp\n"
        "slow = {'matplotlib', 'torchvision', 'sklearn', 'scipy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "assert sp.tasks.windows and sp.plot and sp.models.mnist_model\n"
        "assert 'matplotlib' in sys.modules\n"
        "from snnparams import plot, tasks, models\n"
        "assert plot is sp.plot"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
