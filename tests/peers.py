"""Norse, with which the package is compared: imported here, and so only by the tests that use it."""

import warnings

with warnings.catch_warnings():  # Norse 1.1 uses torch.jit, which newer torch releases deprecate on import
    warnings.simplefilter("ignore")
    import norse.torch as norse
    from norse.torch.functional import leaky_integrator, lif
    from norse.torch.functional.threshold import threshold

__all__ = ["leaky_integrator", "lif", "norse", "threshold"]
