"""What a compressed model may weigh, cost and lose, and how users write that. Importing it imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from falconet.errors import ConfigError
from falconet.schema import check_finite_fields

DEFAULT_DROP = 0.5
"""Points of accuracy that may be lost where neither a drop nor a size is asked for."""


@dataclass(frozen=True)
class Budget:
    """Limits of a compressed model; None: no limit."""

    max_bytes: int | None = None
    """Of the coded file, all of it."""

    max_drop: float | None = None
    """Points of accuracy, on the validation split, below the model that is compressed."""

    max_latency_ms: float | None = None
    """Median for one sample, on one thread of this machine, in the fastest runtime that is installed."""

    max_macs: int | None = None
    """Multiply-accumulates of one sample."""

    seconds: float | None = None
    """Of all trials: none begins that, if it took as long as the last, would end later."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_latency_ms", "max_macs", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name}: wanted above 0, found {value}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"max_drop: wanted 0 to 100 points of accuracy, found {self.max_drop}")
        check_finite_fields(self)

    @property
    def allowed_drop(self) -> float:
        """Points that the search lets go of: without limits DEFAULT_DROP, all where only the size is limited."""
        if self.max_drop is not None:
            return self.max_drop
        return DEFAULT_DROP if self.max_bytes is None else 100.0

    def describe(self) -> str:
        """Return the limits in a line."""
        parts = {
            f"{show_size(self.max_bytes or 0)}": self.max_bytes,
            f"{self.allowed_drop:g} points lost": self.max_drop if self.max_bytes else self.allowed_drop,
            f"{self.max_latency_ms} ms": self.max_latency_ms,
            f"{self.max_macs or 0:,} MACs": self.max_macs,
            f"{self.seconds or 0:g} s of search": self.seconds,
        }
        return "at most " + ", ".join(text for text, value in parts.items() if value is not None)


COUNTS = MappingProxyType({"": 1, "k": 1000, "m": 10**6, "g": 10**9})
BYTES = MappingProxyType({"b": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "kib": 1024, "mib": 2**20, "gib": 2**30})
SIZES = MappingProxyType({**COUNTS, **BYTES})
LATENCIES = MappingProxyType({"us": 1e-3, "ms": 1.0, "s": 1e3})
TIMES = MappingProxyType({"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0})


def parse_size(text: str, name: str = "size") -> int:
    """Return the bytes of `40kB` (1,000 bytes each), `40KiB` (1,024) or `40000`. Raises ConfigError."""
    return int(parse(text, SIZES, name, "a size such as 40kB or 1.5MB", least=1))


def parse_count(text: str, name: str = "count") -> int:
    """Return the number that `1.5M`, `300k` or `300000` means. Raises ConfigError."""
    return int(parse(text, COUNTS, name, "a number such as 1.5M or 300k", least=1))


def parse_time(text: str, name: str = "time") -> float:
    """Return the seconds of `10m`, `90s` or `1.5h`. Raises ConfigError."""
    return parse(text, TIMES, name, "a time such as 10m, 90s or 1.5h")


def parse_latency(text: str, name: str = "latency") -> float:
    """Return the milliseconds of `1ms` or `250us`; `1m` would be a minute, and is none. Raises ConfigError."""
    return parse(text, LATENCIES, name, "a time such as 1ms or 250us")


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


def show_size(size: int) -> str:
    """Return bytes as people read them, in thousands."""
    if size < 10_000:
        return f"{size:,} bytes"
    return f"{size / 1000:.1f} kB" if size < 10**6 else f"{size / 10**6:.2f} MB"
