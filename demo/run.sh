#!/usr/bin/env bash
# Runs the demo from a fresh clone: sets up cpost and the engine, builds the images, measures the four operators.
# Usage: demo/run.sh [more options of 'cpost run']     (safe to repeat; works from any directory)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
demo=$root/demo
cache=$demo/.cache

fail() { printf 'cpost demo: %s\n  what to do: %s\n' "$1" "$2" >&2; exit 5; }

"$root/scripts/venv.sh" run
"$root/scripts/engine.sh"
(cd "$root" && .venv/bin/python -m demo.image.build)

series=$cache/packages/nibabel/tests/data/example4d.nii.gz
[ -f "$series" ] || fail "the MR series is not in the installed nibabel ($series)" "remove $cache and start again"
mkdir -p "$cache/input"
cp "$series" "$cache/input/"

echo "cpost demo: measuring four operators, about a minute"
status=0
"$root/.venv/bin/cpost" run "$demo/pipeline.yaml" "$cache/input" --models_dir "$demo/models" \
  --triton_image cpost-demo-triton:1 --metrics_dir "$demo/metrics" --outputs_dir "$demo/outputs" --overwrite --force stop "$@" || status=$?

if [ "$status" = 0 ]; then
  echo "cpost demo: metrics (one CSV per operator and server, summary.csv, run.json, report.html to look at) in $demo/metrics"
  picture=$(find "$demo/outputs" -name picture.png -print -quit)
  [ -z "$picture" ] || echo "cpost demo: the ventricles, red on the slices, in $picture"
fi
exit "$status"
