"""Data that tests make for themselves; nothing is downloaded."""

from __future__ import annotations

import html
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from falconet.errors import ExportError
from falconet.escaping import escape_line
from falconet.model import train
from falconet.report import ModelReport
from falconet.report.pictures import to_svg
from falconet.reporting import update_report
from falconet.runs import RunResult

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("falconet", deadline=None)
settings.load_profile("falconet")

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from playwright.sync_api import Browser

FolderMaker = Callable[..., Path]


_SEED = 20_261
"""Not one that the package or a test draws by, or two networks that should differ would be alike."""


def _seed() -> None:
    random.seed(_SEED)
    torch.manual_seed(_SEED)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let a file that is imported make the same weights for its parameters, whatever was imported before."""
    if isinstance(collector, pytest.Module):
        _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let a test draw the same numbers alone and among others: a failure once in 1,000 runs tells nothing."""
    _seed()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep pixels that are cached on disk away from the user's own."""
    folder = tmp_path_factory.mktemp("pixels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALCONET_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Let Ctrl-C be heard, as on a terminal: a shell starts what runs in its background without."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def refuse_exports(patch: pytest.MonkeyPatch) -> None:
    """Let no network be exported for a report."""

    def refuse(*arguments: object, **named: object) -> None:
        raise ExportError("the tests export no networks for their reports")

    patch.setattr("falconet.exporters.timing.write_network", refuse)
    patch.setattr("falconet.compression.result.export", refuse)


@pytest.fixture(autouse=True, scope="session")
def torch_alone() -> Iterator[None]:
    """Let reports time networks in torch alone, as they do those that ONNX cannot hold.

    Exporting each of the many networks here would take most of the time. What reports call is called all the same; the
    tests of timing and of compression put back what is replaced.
    """
    with pytest.MonkeyPatch.context() as patch:
        refuse_exports(patch)
        yield


def sketch_pictures(patch: pytest.MonkeyPatch) -> None:
    """Let the curves of reports be put together, but not drawn."""

    def sketch(draw: Callable[[], Figure], description: str) -> str:
        draw()
        return f'<svg role="img" aria-label="{html.escape(escape_line(description))}"></svg>'

    replace_drawing(patch, sketch)


def replace_drawing(patch: pytest.MonkeyPatch, function: Callable[[Callable[[], Figure], str], str]) -> None:
    for module in ("pictures", "quality", "html"):
        patch.setattr(f"falconet.report.{module}.to_svg", function)


@pytest.fixture(autouse=True, scope="session")
def sketched() -> Iterator[None]:
    """Let reports say what their curves show, but not draw them.

    Drawing takes most of the time of a run on small data. The tests of reports draw, as does the run that others share.
    """
    with pytest.MonkeyPatch.context() as patch:
        sketch_pictures(patch)
        yield


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MiniLM have two of its six blocks, which are alike."""
    monkeypatch.setattr("falconet.models.minilm._LAYERS", 2)


@pytest.fixture
def make_folder(tmp_path: Path) -> FolderMaker:
    """Return a function that makes a folder of class subfolders.

    Class k of n has gray images around level (k + 1) / (n + 1), so that any network can learn them.
    """

    def make(
        name: str = "photos",
        classes: tuple[str, ...] = ("dark", "light"),
        count: int = 12,
        size: tuple[int, int] = (16, 20),
        mode: str = "RGB",
        splits: tuple[str, ...] = ("",),
    ) -> Path:
        generator = np.random.default_rng(0)
        root = tmp_path / name
        for split in splits:
            for number, label in enumerate(classes):
                folder = root / split / label
                folder.mkdir(parents=True)
                level = 255 * (number + 1) / (len(classes) + 1)
                for index in range(count):
                    noise = generator.normal(level, 12, size=(*size, 3))
                    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
                    image.convert(mode).save(folder / f"{index:03d}.png")
        return root

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of two epochs on the digits, for tests that need an artifact; do not write to its folder."""
    out = tmp_path_factory.mktemp("runs") / "digits-lenet_relu"
    with pytest.MonkeyPatch.context() as patch:
        replace_drawing(patch, to_svg)
        return train("digits", model="lenet_relu", epochs=2, out=out)


@pytest.fixture(scope="session")
def explained(trained: RunResult, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelReport]:
    """The same run with explanations in its report: its folder, not to be written to, and what the report says."""
    out = tmp_path_factory.mktemp("explained") / "digits-lenet_relu"
    shutil.copytree(trained.out, out)
    with pytest.MonkeyPatch.context() as patch:
        replace_drawing(patch, to_svg)
        return out, update_report(out, reasons=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium or another one of this machine, else playwright's own; without any, a failure under CI."""
    from playwright.sync_api import Error, sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no browser ({error.message.splitlines()[0]}): apt-get install chromium")
        yield browser
        browser.close()
