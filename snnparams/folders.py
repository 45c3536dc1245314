"""Where files are kept between two uses: downloads and compiled kernels, and data that the user has already."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return where downloads are kept: `snnparams` below `XDG_CACHE_HOME`, or else below `~/.cache`.

    Raises:
        RuntimeError: if neither is known.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "snnparams"
    try:
        return Path.home() / ".cache" / "snnparams"
    except RuntimeError as error:
        raise RuntimeError(f"cache: expected a folder, got none ({error}) Set XDG_CACHE_HOME to one") from None


def given_folder() -> Path | None:
    """Return the folder that the environment variable `SNNPARAMS_DATA` names, or None.

    Raises:
        FileNotFoundError: if there is no such folder.
        NotADirectoryError: if it is a file.
        PermissionError: if it cannot be read.
    """
    given = os.environ.get("SNNPARAMS_DATA")
    if not given:
        return None
    root = Path(given)
    if not root.exists():
        raise FileNotFoundError(f"SNNPARAMS_DATA: expected a folder, but {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"SNNPARAMS_DATA: expected a folder, but {root} is a file")
    if not os.access(root, os.R_OK | os.X_OK):
        raise PermissionError(f"SNNPARAMS_DATA: {root} cannot be read; check its permissions")
    return root
