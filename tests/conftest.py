"""What all tests share."""

import os
import warnings

import pytest
import torch

if not torch.cuda.is_available():  # Triton decides when it is imported
    os.environ["TRITON_INTERPRET"] = "1"

with warnings.catch_warnings():  # Norse 1.1 uses torch.jit, which newer torch releases deprecate on import
    warnings.simplefilter("ignore")
    import norse.torch  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Compute in float64: a spike network of float32 is compared with no other, as a spike may hang on a rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
