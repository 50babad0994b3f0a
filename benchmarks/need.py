"""What an operator needs, told from what is only file cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import cpost_runs, table
from benchmarks.cpost_runs import Operator
from benchmarks.programs import TRUTH
from benchmarks.ranges import range_of
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Memory: need against cache"
_MIB = 2**20
_HEAP_MIB, _MOST_MIB = 100, 120
_SPARE_MIB = 20
NOTES = ("Need: beside it stand the kernel's peak, file cache included, and the highest `file_bytes` of the series.",)


def measure(setting: Setting) -> Findings:
    """A big file through a small heap, and a big file in /dev/shm."""
    streamed, shared = setting.scale.streamed_mib, setting.scale.shared_mib
    operators = [
        Operator("stream", ("heap", str(_HEAP_MIB), "stream", "/in/file")),
        Operator("shared", ("fill", "/dev/shm/file", str(shared), "sleep", "300")),
    ]
    with cpost_runs.work_folder() as folder:
        payload = folder / "payload"
        _make_payload(payload, streamed)
        shm = ("--shm_size", f"{shared + _SPARE_MIB}m")
        finished = cpost_runs.run(setting.image, operators, folder, *shm, payload=payload)
        peak = finished.totals("stream")["memory_peak_bytes"] // _MIB
        cache = max(int(row["file_bytes"] or 0) for row in finished.series("stream")) // _MIB
    through = f"{streamed} MiB streamed through {_HEAP_MIB} MiB (peak {peak}, cache {cache})"
    return Findings(
        [
            _line(through, finished, "stream", 0, _MOST_MIB),
            _line(f"{shared} MiB written to /dev/shm", finished, "shared", shared, shared + _SPARE_MIB),
        ],
        NOTES,
    )


def _line(what: str, finished: cpost_runs.Finished, operator: str, low: int, high: int) -> Line:
    need_bytes = finished.operators[operator]["usage"]["need_peak_bytes"]
    aim = f"{low} to {high} MiB"
    if need_bytes is None:
        return Line(THEME, what, "MiB", {table.CPOST: "not known"}, aim, met=False)
    need = need_bytes / _MIB
    return Line(THEME, what, "MiB", {table.CPOST: range_of([need])}, aim, low <= need <= high, digits=1)


def _make_payload(folder: Path, streamed_mib: int) -> None:
    """The workload, and a file without blocks on the disk: once read, its pages are in the cache all the same."""
    folder.mkdir()
    shutil.copy2(TRUTH, folder / TRUTH.name)
    with (folder / "file").open("wb") as file:
        file.truncate(streamed_mib * _MIB)
