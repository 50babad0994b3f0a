"""Receives an MR series: waits until it stands still, decodes it and turns it to one orientation.

Usage: reader.py PAYLOAD OUTPUT
"""

import sys
import time
from pathlib import Path

import nibabel
import numpy as np
from volume import find, log, save, setting

POLL_SECONDS = 0.2


def state(payload: Path) -> list[tuple[str, int]]:
    """List the payload's files with their sizes."""
    return sorted((str(path), path.stat().st_size) for path in payload.rglob("*") if path.is_file())


def wait_until_still(payload: Path, seconds: float) -> None:
    """Wait until nothing has been added to the payload for a while, as a receiver of scanner data must."""
    seen, since = state(payload), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(POLL_SECONDS)
        now = state(payload)
        if now != seen:
            seen, since = now, time.monotonic()
    log(f"the payload stands still: {len(seen)} file(s), {sum(size for _, size in seen) / 1e6:.2f} MB")


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a series as floats with axes that run to the right, to the front and to the top."""
    image = nibabel.load(path)
    turned = nibabel.as_closest_canonical(image)
    values = np.array(turned.dataobj, dtype=np.float32)
    codes = "".join(nibabel.aff2axcodes(image.affine))
    log(f"{path.name}: {' x '.join(map(str, values.shape))}, stored as {image.get_data_dtype()} in {codes}")
    return values.reshape(*values.shape[:3], -1), turned.affine


def main() -> None:
    """Run the operator."""
    payload, output = sys.argv[1:]
    wait_until_still(Path(payload), setting("SETTLE_SECONDS", 2))
    values, affine = decode(find(payload))
    log(f"{values.shape[3]} time point(s), values from {values.min():.0f} to {values.max():.0f}")
    save(values, affine, Path(output) / "series.nii")


if __name__ == "__main__":
    main()
