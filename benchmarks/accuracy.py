"""How true cpost's totals are, and what its sampler costs: known appetites, each measured several times.

The test image's program burns a stated CPU time and touches a stated amount of memory. Printed are, as median and
range, the errors of cpost's CPU total and memory peak against what was stated, and the sampling thread's own CPU time
as a share of the operator's life.

    .venv/bin/python benchmarks/accuracy.py [--repeats 10] [--period 10ms]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "images"))

CASES = {
    "burn 30 ms": ("burn 30 1", 30_000, None),
    "burn 300 ms": ("burn 300 1", 300_000, None),
    "burn 1 s": ("burn 1000 1", 1_000_000, None),
    "burn 2 s on 2 threads": ("burn 2000 2", 2_000_000, None),
    "touch 20 MB": ("touch 20", None, 20_000_000),
    "touch 100 MB": ("touch 100", None, 100_000_000),
    "touch 500 MB": ("touch 500", None, 500_000_000),
    "sleep 5 s": ("sleep 5000", None, None),
}


def main() -> None:
    """Measure every case and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--period", default="10ms")
    options = parser.parse_args()
    image = build_image()
    print(f"{'case':<24}{'CPU error (ms)':>28}{'peak error (MB)':>28}{'sampler CPU (% of a core)':>28}")
    for name, (command, cpu_us, peak_bytes) in CASES.items():
        results = [measure(image, command, options.period) for _ in range(options.repeats)]
        cpu = [(r["totals"]["cpu_us"] - cpu_us) / 1e3 for r in results] if cpu_us is not None else []
        peak = (
            [(r["totals"]["memory_peak_bytes"] - peak_bytes) / 1e6 for r in results] if peak_bytes is not None else []
        )
        cost = [r["sampling"]["sampler_cpu_us"] * 1e5 / r["wall_ns"] for r in results]
        print(f"{name:<24}{spread(cpu):>28}{spread(peak):>28}{spread(cost):>28}")


def measure(image: str, command: str, period: str) -> dict[str, dict[str, int]]:
    """One run of one operator; its result out of the record."""
    repository, tag = image.rsplit(":", 1)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Path(folder, "pipeline.yaml")
        words = json.dumps(["appetite", *command.split()])
        pipeline.write_text(
            f"api-version: 0.4.0\nname: accuracy\noperators:\n  - name: subject\n"
            f"    container: {{image: {repository}, tag: {tag}, command: {words}}}\n"
        )
        run = [sys.executable, "-m", "cpost", "run", str(pipeline), folder, "--json", "--quiet", "--period", period]
        output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return json.loads(output)["operators"][0]["result"]


def spread(values: list[float]) -> str:
    """Median and range."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def build_image() -> str:
    """The test image, built if it is not here."""
    import build
    import docker

    return build.ensure_images(docker.from_env())


if __name__ == "__main__":
    main()
