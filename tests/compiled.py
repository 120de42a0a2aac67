"""Compilation in tests, without a compiler."""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch


def compile_by(monkeypatch: pytest.MonkeyPatch, backend: str | Callable[..., Any]) -> None:
    """Have the compiler's graphs run by a backend, without the tests' checks of shapes, which it would trace."""
    compile_function = torch.compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compile_function(function, backend=backend, **options)
    )
