"""What the four operators share: reading and writing NIfTI volumes, and their log lines."""

import os
import sys
import time
from pathlib import Path

import nibabel
import numpy as np

START = time.monotonic()


def log(text: str) -> None:
    """Print one line with the operator's name and the seconds since its start."""
    print(f"[{Path(sys.argv[0]).stem} {time.monotonic() - START:6.2f} s] {text}", flush=True)


def setting(name: str, default: float) -> float:
    """Read a number from the operator's `variables`."""
    return float(os.environ.get(name, default))


def find(folder: str) -> Path:
    """Return the one NIfTI file of a folder."""
    files = sorted(Path(folder).glob("*.nii*"))
    if len(files) != 1:
        sys.exit(f"{folder} must hold one NIfTI file, it holds {len(files)}")
    return files[0]


def load(folder: str, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Read the volume of a folder into memory: its values and its affine."""
    image = nibabel.load(find(folder))
    return np.array(image.dataobj, dtype=dtype, order="C"), image.affine


def save(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume, and wait until the disk has it."""
    nibabel.Nifti1Image(values, affine).to_filename(path)
    sync(path)
    log(f"wrote {path.name}: {path.stat().st_size / 1e6:.1f} MB")


def sync(path: Path) -> None:
    """Wait until the disk has a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def spacing(affine: np.ndarray) -> np.ndarray:
    """Return the edge lengths of a voxel in millimetres."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
