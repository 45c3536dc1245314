"""What all tests share."""

import importlib.util
import os

import pytest
import torch

if not torch.cuda.is_available():  # Triton decides when it is imported
    os.environ["TRITON_INTERPRET"] = "1"


def _prepare_triton_once():
    """Spare Triton's interpreter what takes almost half of its time.

    Before each call of a function by a kernel it looks through its whole language for functions to replace, though
    the launch of the kernel has replaced them. A version of Triton that has other names for this is left as it is.
    """
    from triton import language
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_patch_lang") or not hasattr(interpreter, "_LangPatchScope"):
        return
    prepare = interpreter._patch_lang

    def prepare_once(function):
        used = [value for value in function.__globals__.values() if value is language or value is language.core]
        if used and not any(language.core.is_builtin(module.load) for module in used):
            return interpreter._LangPatchScope()
        return prepare(function)

    interpreter._patch_lang = prepare_once


if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    _prepare_triton_once()


def _with_room(function, /, **arguments):
    """Call a function on a part of the interpreter's stack that has room for all that it calls."""
    return function(**arguments)


# CPython 3.11 keeps frames in chunks of 16 KiB, and returns a chunk to the system as soon as it is empty. A test whose
# calls cross the end of a chunk asks the system for the next one at every call, which can take a third of its time. A
# function that says it needs a large stack gets a chunk that is larger still, and all that it calls fits into the rest.
_with_room.__code__ = _with_room.__code__.replace(co_stacksize=65_000)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test as pytest does, with room."""
    plugins = pyfuncitem.config.pluginmanager
    this = [plugin for plugin in plugins.get_plugins() if getattr(plugin, "_with_room", None) is _with_room]
    return _with_room(plugins.subset_hook_caller("pytest_pyfunc_call", this), pyfuncitem=pyfuncitem)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Compute in float64: a spike network of float32 is compared with no other, as a spike may hang on a rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def double_in_one_thread(double):
    """Compute in float64, and small problems in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser():
    """Return headless Chromium; without playwright the test is skipped."""
    from chromium import launch

    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()
