"""The machine's own Chromium, for what playwright does here: it downloads none."""

import shutil

QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def chromium() -> str | None:
    """Return where Chromium is."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def launch(playwright):
    """Return a headless browser."""
    return playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, "--no-sandbox"])
