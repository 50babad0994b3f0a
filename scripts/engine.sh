#!/usr/bin/env bash
# Sees to a Docker engine: uses the one that answers, else, as root on Debian or Ubuntu, installs and starts one,
# else says exactly what to do. Usage: scripts/engine.sh   (needs .venv; DOCKER_HOST is honoured)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python

fail() { printf 'cpost set-up: %s\n  what to do: %s\n' "$1" "$2" >&2; exit 5; }
answers() { "$python" -c 'import docker; docker.from_env(timeout=10).ping()' >/dev/null 2>&1; }

await() {  # await SECONDS: true once the engine answers
  local deadline=$((SECONDS + $1))
  until answers; do [ "$SECONDS" -lt "$deadline" ] || return 1; done
}

forget_dead() {  # forget_dead NAME FILE: remove a pid file that names no process of that name
  [ -f "$2" ] && [ "$(cat "/proc/$(cat "$2")/comm" 2>/dev/null)" != "$1" ] && rm -f "$2"
  return 0
}

start() {
  echo "cpost set-up: starting the Docker engine"
  if [ -d /run/systemd/system ]; then
    systemctl start docker || return 1
  else
    local log=/var/log/dockerd.log
    # Pid files left by an engine that died keep the next one from starting, the more so once the number is another's.
    forget_dead dockerd /var/run/docker.pid
    forget_dead containerd /var/run/docker/containerd/containerd.pid
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
  fi
  await 60
}

answers && exit 0
if [ -n "${DOCKER_HOST:-}" ]; then
  fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start that engine, or unset DOCKER_HOST to use the local one"
fi
if [ "$(id -u)" != 0 ]; then
  if [ -S /var/run/docker.sock ]; then
    fail "the Docker engine's socket is there, but not for you ($(id -un))" "sudo usermod -aG docker $(id -un), then log in again; or start this script with sudo"
  fi
  fail "no Docker engine answers, and only root can install one" "sudo apt-get install docker.io && sudo systemctl start docker; or start this script with sudo"
fi
if ! command -v dockerd >/dev/null; then
  command -v apt-get >/dev/null ||
    fail "no Docker engine answers, and this is not Debian or Ubuntu" "install Docker Engine 20.10 or newer, start it, then start this script again"
  "$root/scripts/apt.sh" docker.io iptables
fi
answers || start || fail "the Docker engine was started but does not answer" "look at 'journalctl -u docker' or /var/log/dockerd.log"
