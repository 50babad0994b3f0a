"""Runs the benchmarks and prints one table.

    benchmarks/run.sh [--quick] [--only THEME]... [--storm N] [--samples N] [--json FILE]

The themes are the keys of `THEMES`. Every figure is a median with its range. A host that does other work meanwhile
bends costs, jitter and times; fidelity hardly.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import docker

from benchmarks import (
    cpu_totals,
    endurance,
    jitter,
    memory_kills,
    need,
    overhead,
    programs,
    recommendations,
    sampler_cost,
    slowdown,
    spikes,
    table,
)
from benchmarks.setting import FULL, QUICK, Setting
from cpost.measure.cgroup import Hierarchies

THEMES = {
    "cost": sampler_cost.measure,
    "jitter": jitter.measure,
    "cpu": cpu_totals.measure,
    "spikes": spikes.measure,
    "need": need.measure,
    "kills": memory_kills.measure,
    "slowdown": slowdown.measure,
    "overhead": overhead.measure,
    "endurance": endurance.measure,
    "recommendations": recommendations.measure,
}


def main() -> None:
    """Measure all themes, or the chosen ones, and print the table."""
    options = _options()
    programs.build()
    engine = docker.from_env()
    scale = QUICK if options.quick else FULL
    scale = replace(scale, storm=options.storm or scale.storm)
    scale = replace(scale, endurance_samples=options.samples or scale.endurance_samples)
    setting = Setting(_image(engine), scale)
    about = _about(engine)
    print(about, flush=True)
    started = time.monotonic()
    lines: list[table.Line] = []
    notes: list[str] = []
    grids: list[table.Grid] = []
    failed = []
    for name in options.only or THEMES:
        begun = time.monotonic()
        try:
            found = THEMES[name](setting)
        except Exception:  # the other themes' figures are worth having all the same
            traceback.print_exc()
            failed.append(name)
            continue
        lines += found.lines
        notes += found.notes
        grids += found.grids
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    took = (
        f"{'quick' if options.quick else 'full'} run of {time.monotonic() - started:.0f} s, load {_load()} at its end"
    )
    print(f"{took}\n\n{table.render(lines)}\n" + "\n".join(notes))
    print("".join(f"\n{table.markdown(grid)}" for grid in grids), end="")
    if options.json:
        data = {"about": about, "took": took, "lines": table.as_data(lines), "notes": notes}
        data["grids"] = [asdict(grid) for grid in grids]
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if failed:
        sys.exit(f"cpost benchmarks: broke off: {', '.join(failed)} (their errors are above)")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under three minutes, to see that everything works")
    parser.add_argument("--only", action="append", choices=THEMES, metavar="THEME", help=f"of {', '.join(THEMES)}")
    parser.add_argument("--storm", type=int, metavar="N", help="so many memory kills, and as many other ones")
    parser.add_argument("--samples", type=int, metavar="N", help="of the simulated long run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser.parse_args()


def _image(engine: docker.DockerClient) -> str:
    """The test image, built if it is not here."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    build = importlib.import_module("images.build")
    return str(build.ensure_images(engine))


def _about(engine: docker.DockerClient) -> str:
    """The host in one line."""
    layout, version = Hierarchies.read().layout, engine.version()["Version"]
    return (
        f"Linux {platform.release()}, control groups {layout}, Docker {version}, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, load {_load()}"
    )


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    main()
