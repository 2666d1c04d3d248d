"""Sizes, counts and times as users write them, to numbers and back. Importing it imports neither torch nor NumPy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from falconet.errors import ConfigError

_COUNTS = MappingProxyType({"": 1, "k": 1000, "m": 10**6, "g": 10**9})
_BYTES = MappingProxyType({"b": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "kib": 1024, "mib": 2**20, "gib": 2**30})
_SIZES = MappingProxyType({**_COUNTS, **_BYTES})
_LATENCIES = MappingProxyType({"us": 1e-3, "ms": 1.0, "s": 1e3})
_TIMES = MappingProxyType({"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0})
"""Units by their lower-case names: sizes in bytes, latencies in milliseconds, times in seconds."""


def parse_size(text: str, name: str = "size") -> int:
    """Return the bytes of `40kB` (1,000 bytes each), `40KiB` (1,024) or `40000`. Raises ConfigError."""
    return int(parse(text, _SIZES, name, "a size such as 40kB or 1.5MB", least=1))


def parse_count(text: str, name: str = "count") -> int:
    """Return the number that `1.5M`, `300k` or `300000` means. Raises ConfigError."""
    return int(parse(text, _COUNTS, name, "a number such as 1.5M or 300k", least=1))


def parse_time(text: str, name: str = "time") -> float:
    """Return the seconds of `10m`, `90s` or `1.5h`. Raises ConfigError."""
    return parse(text, _TIMES, name, "a time such as 10m, 90s or 1.5h")


def parse_latency(text: str, name: str = "latency") -> float:
    """Return the milliseconds of `1ms` or `250us`; `1m` would be a minute, and is none. Raises ConfigError."""
    return parse(text, _LATENCIES, name, "a time such as 1ms or 250us")


def parse(text: str, units: Mapping[str, float], name: str, wanted: str, least: float = 0.0) -> float:
    """Return a number times its unit, of `least` or more. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:[._]\d+)*)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ConfigError(f"{name}: wanted {wanted}, found {text!r}")
    try:
        value = float(match[1]) * units[match[2].lower()]
    except ValueError as error:
        raise ConfigError(f"{name}: wanted {wanted}, found {text!r}") from error
    if not (0 < value < 2**62 and value >= least):
        limit = f"{least:g} or more" if least else "above 0"
        raise ConfigError(f"{name}: wanted {wanted}, {limit}, found {text[:40]!r}")
    return value


def format_epochs(count: int) -> str:
    """Return a number of epochs with its noun."""
    return f"{count:,} epoch{'' if count == 1 else 's'}"


def format_loss(loss: float) -> str:
    """Return a loss to four decimals; of a small one, which would be all zeros, two digits and a power of ten."""
    return f"{loss:.1e}" if 0 < loss < 0.001 else f"{loss:.4f}"


def format_size(size: int) -> str:
    """Return bytes as people read them, in thousands."""
    if size < 10_000:
        return f"{size:,} bytes"
    return f"{size / 1000:.1f} kB" if size < 10**6 else f"{size / 10**6:.2f} MB"
