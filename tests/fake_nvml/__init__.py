"""Stand-ins for NVIDIA's libraries: compiled when a test asks for them, and loaded by the real pynvml (see nvml.c)."""

from __future__ import annotations

import subprocess
from pathlib import Path

SONAME = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML"


def compile_into(folder: Path, source: str = "nvml.c", soname: str = SONAME) -> Path:
    """Compile a library into a folder, which then goes into LD_LIBRARY_PATH; return its path."""
    library = folder / soname
    flags = ["-shared", "-fPIC", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{soname}"]
    subprocess.run(["gcc", *flags, "-o", library, Path(__file__).with_name(source)], check=True)
    return library


def write(script: Path, *lines: str) -> None:
    """Replace the script in one go: the library may be reading it."""
    new = script.with_name(script.name + ".new")
    new.write_text("".join(f"{line}\n" for line in lines))
    new.replace(script)
