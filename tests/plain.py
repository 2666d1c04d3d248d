"""The command line in a process of its own, `python -m tests.plain`, whose reports export and draw nothing.

So it is in the tests' own process; see `tests/conftest.py`. It is started in the repository's folder.
"""

from __future__ import annotations

import pytest

from falconet.cli import main
from tests.conftest import refuse_exports, sketch_pictures

if __name__ == "__main__":
    for stop in (refuse_exports, sketch_pictures):
        stop(pytest.MonkeyPatch())
    main()
