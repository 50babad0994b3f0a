#!/usr/bin/env bash
# Measures cpost beside docker stats, psrecord, BenchExec's runexec and a C loop, and prints one table, in some ten
# minutes. Sees to what it needs (see scripts/). Nothing else should run on the host meanwhile.
# Usage: benchmarks/run.sh [--quick] [--only THEME]... [--storm N] [--samples N] [--json FILE]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ "$(id -u)" != 0 ]; then
  printf 'cpost set-up: the benchmarks need root: they make control groups\n  what to do: start this script with sudo\n' >&2
  exit 5
fi
"$root/scripts/venv.sh" bench
"$root/scripts/packages.sh" "the benchmarks" --image
"$root/scripts/engine.sh"
PYTHONPATH=$root exec "$root/.venv/bin/python" -m benchmarks "$@"
