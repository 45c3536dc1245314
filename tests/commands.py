"""Commands that tests run."""

import subprocess


def run(*command, timeout=400, **kwargs) -> str:
    """Run a command that must succeed in that time (s), and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
