"""How users write sizes, counts and times."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falconet.errors import ConfigError
from falconet.units import format_epochs, format_loss, format_size, parse_count, parse_latency, parse_size, parse_time


@pytest.mark.parametrize(
    ("loss", "words"),
    [(1.23456, "1.2346"), (0.001, "0.0010"), (0.00004, "4.0e-05"), (0.0, "0.0000"), (12.0, "12.0000")],
)
def test_small_losses_keep_their_digits(loss: float, words: str) -> None:
    assert format_loss(loss) == words


def test_one_epoch_is_no_plural() -> None:
    assert [format_epochs(count) for count in (1, 2, 1200)] == ["1 epoch", "2 epochs", "1,200 epochs"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("40kB", 40_000),
        ("40 KB", 40_000),
        ("40k", 40_000),
        ("1.5MB", 1_500_000),
        ("2KiB", 2048),
        ("3000", 3000),
        ("1MiB", 2**20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90s", 90), ("1.5h", 5400), ("0.5s", 0.5), ("2min", 120)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "milliseconds"), [("1ms", 1.0), ("250us", 0.25), ("2s", 2000)])
def test_latencies(text: str, milliseconds: float) -> None:
    assert parse_latency(text) == pytest.approx(milliseconds)


def test_a_latency_in_minutes_is_a_slip() -> None:
    with pytest.raises(ConfigError, match=r"--max-latency: wanted a time such as 1ms or 250us, found '1m'"):
        parse_latency("1m", "--max-latency")


@pytest.mark.parametrize(("text", "count"), [("1M", 10**6), ("1.5M", 1_500_000), ("300k", 300_000), ("12", 12)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "kB", "-3kB", "0kB", "4 parsecs", "1e3", "nan", "1..5MB", "inf", "0.5B"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-size: wanted a size such as 40kB"):
        parse_size(text, "--max-size")


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_clear_error(text: str) -> None:
    message = ""
    try:
        assert parse_size(text) >= 1
    except ConfigError as error:
        message = str(error)
    assert not message or "wanted a size" in message


def test_sizes_as_people_read_them() -> None:
    assert [format_size(size) for size in (9_999, 10_000, 2_500_000)] == ["9,999 bytes", "10.0 kB", "2.50 MB"]


def test_units_need_no_library() -> None:
    code = "import sys, falconet.units; sys.exit(bool({'torch', 'numpy', 'falconet.compression'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
