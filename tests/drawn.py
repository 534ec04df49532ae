"""hypothesis, or where it is not installed stand-ins with which a test that draws its cases skips.

For tests that also run on machines lent for their GPU; the other tests of such a file run there all the same.
"""

from typing import Any

import pytest

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:

    class _Anything:
        """Takes any name and any call."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self

    HealthCheck = st = _Anything()  # type: ignore[assignment,misc]

    def settings(*args: Any, **kwargs: Any) -> Any:  # type: ignore[no-redef]
        """Leaves a test as it is."""
        return lambda test: test

    def given(*args: Any, **kwargs: Any) -> Any:  # type: ignore[no-redef]
        """Skips a test, whose drawn arguments nobody would give."""

        def skipped(test: Any) -> Any:
            def run() -> None:
                pytest.skip("hypothesis is not installed: it draws the cases of this test")

            run.__name__, run.__doc__ = test.__name__, test.__doc__
            return run

        return skipped


__all__ = ["HealthCheck", "given", "settings", "st"]
