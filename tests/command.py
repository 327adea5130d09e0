"""The command `irt` in the process of a test."""

import sys
from collections.abc import Callable

import pytest

from interpret_robust import cli

Irt = Callable[..., tuple[int, str, str]]


def irt(
    capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `irt ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["irt", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capture.readouterr()
    return int(end.value.code or 0), out, err
