"""A process that imports falconet, reads an artifact and predicts, which `measure_costs` times.

`python -m falconet.evaluation.coldstart FOLDER` writes a line after the prediction for one of the raw samples in
`FOLDER/raw.npz`, and one with its memory after that for all of them at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from falconet.artifact import load_artifact
from falconet.evaluation.costs import answer


def _main(folder: Path) -> None:
    """Predict, and report that."""
    imports = _read_peak()
    artifact = load_artifact(folder)
    with np.load(folder / "raw.npz", allow_pickle=False) as file:
        raw = [array if array.ndim else str(array) for array in file.values()]
    answer(artifact, raw[:1])
    sys.stdout.write("answered\n")
    sys.stdout.flush()
    answer(artifact, raw)
    sys.stdout.write(json.dumps({"imports": imports, "peak": _read_peak()}) + "\n")


def _read_peak() -> int | None:
    """Return the peak memory of this process in bytes; None where the system does not report it."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux counts in `getrusage` what the parent had in use when it started this process.
        peaks = [line.split()[1] for line in status.read_text(encoding="ascii").splitlines() if line[:6] == "VmHWM:"]
        return 1024 * int(peaks[0]) if peaks else None
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
