"""Makes an image of the Triton inference server with its Python backend, without a registry: from a wheel on PyPI.

The server lies where it does in NVIDIA's own images and where it looks for backends: `tritonserver` needs no option
for that. Models run in the Python that runs this (see python_image.py), with triton_arrays.py to pass arrays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import docker

from scripts import python_image
from scripts.python_image import MODULES, PROGRAM, Files, ImageError

WHEEL = "nvidia-pytriton==0.7.0"
GLIBC_MIN = (2, 35)  # the wheel's: manylinux_2_35
SERVER = Path("/opt/tritonserver")
SHELL = Path("/bin/bash")  # the server starts the Python backend by name with it
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
APT, ARRAYS = (Path(__file__).with_name(name) for name in ("apt.sh", "triton_arrays.py"))


def prepare(cache: Path, packages_mark: str) -> str:
    """Download the server into a folder, unless it is there; return the mark of the image with these packages.

    Raises ImageError.
    """
    sources = (path.read_text() for path in (Path(__file__), ARRAYS))
    return python_image.mark_of(*sources, packages_mark, fetch(cache / "triton"))


def ensure(client: docker.DockerClient, image: str, mark: str, cache: Path, packages: Path) -> None:
    """Make the image unless the engine has it.

    In: a name with a tag; what `prepare` returned and the folder it was given; the models' packages, numpy among them.
    """
    if python_image.is_made(client, image, mark):
        return
    own = server_files(cache / "triton" / "pytriton" / "tritonserver")
    files = python_image.with_libraries({**python_image.python_files(packages), **own}, packages)
    # The backend ignores Python's variables. It looks for `python3` on the path, and for the modules beside it.
    path = f"{SERVER}/bin:{PROGRAM.parent}:{SHELL.parent}"
    python_image.make(client, image, mark, files, [f"ENV PATH={path}"])


def fetch(folder: Path) -> str:
    """Download the server, unless it is there; return what decided the folder's content."""
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "no glibc").partition(" ")
    if name != "glibc" or tuple(map(int, version.split("."))) < GLIBC_MIN:
        remedy = "use Debian 12, Ubuntu 22.04 or newer"
        raise ImageError(f"the Triton server needs glibc 2.35 or newer, this host has {name} {version}", remedy)
    mark = python_image.install(folder, [WHEEL], "--no-deps", "--no-compile")
    stubs = folder / "pytriton" / "tritonserver" / "python_backend_stubs"
    if not (stubs / VERSION).is_dir():
        known = ", ".join(sorted((path.name for path in stubs.iterdir()), key=lambda name: int(name.split(".")[1])))
        remedy = f"remove .venv and name another one, PYTHON=python3.12 for example; it knows {known}"
        raise ImageError(f"the Triton server has no Python backend for Python {VERSION}", remedy)
    see_to_library(stubs / VERSION / "triton_python_backend_stub")
    return mark


def see_to_library(stub: Path) -> None:
    """See to Python's shared library, with which the backend runs models; as root on Debian or Ubuntu install it."""

    def missing() -> list[str]:
        return [name for name, path in python_image.needed_by(stub).items() if not path.startswith("/")]

    if missing() and os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run([APT, f"libpython{VERSION}"])
    if lacking := missing():
        remedy = f"sudo apt-get install libpython{VERSION}, or use a Python that was built with --enable-shared"
        raise ImageError(f"the Triton server's Python backend needs {', '.join(lacking)}", remedy)


def server_files(server: Path) -> Files:
    """Collect the server and its Python backend for this Python."""
    backend = Path("backends", "python")
    names = [Path("bin", "tritonserver"), backend / "libtriton_python.so", backend / "triton_python_backend_utils.py"]
    stub = server / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    files = {SERVER / name: server / name for name in names}
    return {**files, SERVER / backend / stub.name: stub, MODULES / ARRAYS.name: ARRAYS, SHELL: SHELL}
