#!/usr/bin/env bash
# Makes (or brings up to date) the project's virtual environment in .venv and prints nothing when there is nothing to do.
# Usage: scripts/venv.sh [run|dev|bench]   run: cpost and what it needs; dev, bench: also the tools of the tests, or the
#                                          tools that the benchmarks measure beside it
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kind=${1:-run}
venv=$root/.venv

fail() { printf 'cpost set-up: %s\n  what to do: %s\n' "$1" "$2" >&2; exit 5; }
quiet() {  # quiet COMMAND...: its words are shown only when it fails
  local words
  words=$("$@" 2>&1) || { printf '%s\n' "$words" | tail -n 20 >&2; return 1; }
}

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
  fail "'$python' is missing or older than Python 3.10" "install Python 3.10 or newer, or name one: PYTHON=python3.12 $0"

wanted=$(cat "$root"/requirements*.txt "$root"/setup.cfg "$root"/pyproject.toml | sha256sum | cut -d' ' -f1)
stamp=$venv/.cpost-$kind
for made in "$stamp" "$venv"/.cpost-*; do  # the others have all that run has
  [ "$made" = "$stamp" ] || [ "$kind" = run ] || continue
  if [ "$(cat "$made" 2>/dev/null)" = "$wanted $root" ]; then exit 0; fi
done

echo "cpost set-up: making the virtual environment in .venv ($kind)"
if ! "$python" -m venv "$venv" 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive "$root/scripts/apt.sh" python3-venv
    "$python" -m venv "$venv"
  else
    fail "Python's venv module does not work here" "sudo apt-get install python3-venv   (or your system's package of that module)"
  fi
fi
requirements=(-r "$root/requirements.txt")
[ "$kind" = run ] || requirements+=(-r "$root/requirements-$kind.txt")
quiet "$venv/bin/python" -m pip install --disable-pip-version-check "${requirements[@]}" ||
  fail "pip could not install cpost's packages" "look at pip's words above; behind a proxy set HTTPS_PROXY or PIP_INDEX_URL, then start again"
quiet "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -e "$root" ||
  fail "pip could not install cpost itself" "look at pip's words above, then start again"
printf '%s %s\n' "$wanted" "$root" > "$stamp"
