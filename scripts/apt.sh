#!/usr/bin/env bash
# Installs Debian or Ubuntu packages, quietly, as root; the packages' own words are shown only when it fails.
# Usage: scripts/apt.sh PACKAGE...
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "cpost set-up: installing $* (apt-get)"
if ! { apt-get update && apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  printf 'cpost set-up: apt-get could not install %s\n  what to do: look at its words above; then start again\n' "$*" >&2
  exit 5
fi
