"""Here reports are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from falconet.report.pictures import to_svg
from tests.conftest import replace_drawing


@pytest.fixture(autouse=True, scope="module")
def drawn() -> Iterator[None]:
    """Put back what draws, which tests of other things do without."""
    with pytest.MonkeyPatch.context() as patch:
        replace_drawing(patch, to_svg)
        yield
