#!/usr/bin/env bash
# Sees to a C compiler, for programs and stand-ins of libraries, to the shell of the test image, and to a browser.
# Installs them as root on Debian or Ubuntu, else says exactly what to do.
# Usage: scripts/packages.sh WHO [--image] [--browser]     WHO needs them, for the words; the image's shell, a browser: too
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

missing=()
command -v gcc >/dev/null || missing+=(gcc)
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
for more in "${@:2}"; do
  case $more in
    --image) [ -x /bin/busybox ] || missing+=(busybox-static) ;;
    --browser) command -v chromium >/dev/null || missing+=(chromium) ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  printf 'cpost set-up: %s need %s\n  what to do: sudo apt-get install %s\n' "$1" "${missing[*]}" "${missing[*]}" >&2
  exit 5
fi
"$root/scripts/apt.sh" "${missing[@]}"
