"""Limits of a compressed model: its size, cost and lost accuracy. Importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from falconet.compression.constants import CONSTANTS
from falconet.errors import ConfigError
from falconet.schema import check_fields
from falconet.units import format_size


@dataclass(frozen=True)
class Budget:
    """Limits of a compressed model; None: no limit, except for `max_drop`."""

    max_bytes: int | None = None
    """Bytes of the whole coded file."""

    max_drop: float | None = None
    """Points of validation accuracy that may be lost; None: 0.5, or any where `max_bytes` is set."""

    max_latency_ms: float | None = None
    """Median milliseconds of one sample on one thread of this machine, in the fastest installed runtime."""

    max_macs: int | None = None
    """Multiply-accumulates of one sample."""

    seconds: float | None = None
    """Seconds of all trials: none begins that would end later if it took as long as the last."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("max_bytes", "max_latency_ms", "max_macs", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name}: wanted above 0, found {value}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"max_drop: wanted 0 to 100 points of accuracy, found {self.max_drop}")

    @property
    def allowed_drop(self) -> float:
        """Points of accuracy that may be lost: `max_drop`, else 100 where the size is limited, else the default."""
        if self.max_drop is not None:
            return self.max_drop
        return CONSTANTS.default_drop if self.max_bytes is None else 100.0

    def describe(self) -> str:
        """Return the limits in a line."""
        parts = {
            f"{format_size(self.max_bytes or 0)}": self.max_bytes,
            f"{self.allowed_drop:g} points lost": self.max_drop if self.max_bytes else self.allowed_drop,
            f"{self.max_latency_ms} ms": self.max_latency_ms,
            f"{self.max_macs or 0:,} MACs": self.max_macs,
            f"{self.seconds or 0:g} s of search": self.seconds,
        }
        return "at most " + ", ".join(text for text, value in parts.items() if value is not None)
