#!/usr/bin/env bash
# Checks everything: style, types, the arrows between the rooms, unit tests, the page in a browser, then the tests on a
# real Docker engine.
# Sees to what it needs (see scripts/). Usage: tests/run.sh [--unit] [pytest arguments...]
#   --unit   style, types, arrows and unit tests alone: needs no engine
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bin=$root/.venv/bin

fail() { printf 'cpost set-up: %s\n  what to do: %s\n' "$1" "$2" >&2; exit 5; }
heading() { printf '\n== %s\n' "$1"; }

# The virtual machine is under way from the first test elsewhere on, and is asked last.
suites=(tests/unit tests/browser tests/elsewhere/test_machine.py tests/elsewhere/test_podman.py tests/integration tests/elsewhere/test_v2.py)
if [ "${1:-}" = --unit ]; then
  suites=(tests/unit)
  shift
fi

"$root/scripts/venv.sh" dev

heading "ruff"
"$bin/ruff" check .
"$bin/ruff" format --check .
heading "mypy"
"$bin/mypy" --strict src
heading "import-linter"
"$bin/lint-imports"

packages=()
if [ ${#suites[@]} -gt 1 ]; then
  if [ "$(id -u)" != 0 ]; then
    fail "the tests on a real engine need root: cgroups, a tiny file system, foreign files" "start this script with sudo, or tests/run.sh --unit"
  fi
  "$root/scripts/engine.sh"
  packages=(--image --browser)
  "$root/tests/vm/run" -p
  "$root/tests/podman/run" -p
fi
"$root/scripts/packages.sh" "the tests" "${packages[@]}"
[ ${#suites[@]} = 1 ] || "$bin/python" -m tests.images.triton >/dev/null

heading "pytest"
exec "$bin/python" -m pytest "${suites[@]}" "$@"
