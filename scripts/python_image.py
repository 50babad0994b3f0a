"""Makes Docker images of the Python that runs this, without a registry: it, packages, and the libraries they need."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

LABEL = "cpost.image.content"
PYTHON = Path(sys.executable).resolve()
STDLIB = Path(sysconfig.get_path("stdlib"))
LIBRARIES = (Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"), Path(sys.base_prefix, "lib"))
HOME = Path("/opt/python")
PROGRAM = HOME / "bin" / "python3"
MODULES = HOME / "lib" / STDLIB.name
ENVIRONMENT = {
    "PATH": str(PROGRAM.parent),
    "PYTHONHOME": str(HOME),
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/lib",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",  # nothing here uses it; its idle threads would still spin at the start
}
LEFT_OUT_FOLDERS = {
    *("test", "benchmarks", "include", "bin", "site-packages", "dist-packages"),
    *("idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"),
}
LEFT_OUT_FILES = re.compile(r"(config-\d|test_|(_tkinter|_test|_ctypes_test|xx).*\.so$|.*\.(a|pyi|h|c|opt-[12]\.pyc)$)")

Files = dict[Path, Path]  # the path in the image -> the file here


class ImageError(Exception):
    """An image cannot be made: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n  what to do: {remedy}")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"cpost set-up: {text}", file=sys.stderr, flush=True)


def install(folder: Path, requirements: Sequence[str], *options: str) -> str:
    """Install packages into a folder of their own, unless it has them for this Python; return what decided that."""
    named = " ".join(requirements)
    wanted = " ".join([named, *options, str(PYTHON), sys.version])
    stamp = folder / "installed-for"
    if stamp.is_file() and stamp.read_text() == wanted:
        return wanted
    say(f"installing {named} for an image (pip)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run([*pip, "--target", folder, *options, *requirements], capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-2000:])
        raise ImageError(f"pip could not install {named}", "look at pip's words above; behind a proxy set HTTPS_PROXY")
    stamp.write_text(wanted)
    return wanted


def mark_of(*texts: str) -> str:
    """Name an image's content by one hash over all that decides it, the same in every clone."""
    return hashlib.sha256("\0".join([sys.version, Path(__file__).read_text(), *texts]).encode()).hexdigest()


def is_made(client: docker.DockerClient, image: str, mark: str) -> bool:
    """Say whether the engine has this image with this content."""
    try:
        return client.images.get(image).labels.get(LABEL) == mark
    except ImageNotFound:
        return False


def python_files(packages: Path) -> Files:
    """Collect the interpreter, the standard library and the packages of a folder.

    The packages lie among the standard library's modules: the one place where every build of Python looks for them,
    whatever its own settings and the environment's.
    """
    files = {PROGRAM: PYTHON, **dict(tree(STDLIB, MODULES)), **dict(tree(packages, MODULES))}
    files.pop(MODULES / "sitecustomize.py", None)
    return files


def tree(folder: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Walk a folder for what belongs into the image."""
    for place, folders, names in os.walk(folder):
        if place.endswith("/tests"):  # numpy imports a file from among its tests, but nobody needs their data
            folders.clear()
        folders[:] = [name for name in folders if name not in LEFT_OUT_FOLDERS and not LEFT_OUT_FILES.match(name)]
        for name in names:
            path = Path(place, name)
            if not LEFT_OUT_FILES.match(name) and path.is_file():
                yield target / path.relative_to(folder), path


def needed_by(binary: Path) -> dict[str, str]:
    """Ask the loader which libraries a program or a library needs, and where they lie here: "not" for nowhere."""
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, LIBRARIES))}
    answer = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, env=environment)
    return dict(re.findall(r"^\s*(\S+) => (/\S+|not(?= found))", answer.stdout, re.MULTILINE))


def with_libraries(files: Files, packages: Path) -> Files:
    """Add the libraries that any of the files needs and that the packages' folder does not hold, and the loader."""
    binaries = [path for target, path in files.items() if ".so" in path.suffixes or os.access(path, os.X_OK)]
    with ThreadPoolExecutor() as pool:
        found = {name: path for needed in pool.map(needed_by, binaries) for name, path in needed.items()}
    paths = {Path("/lib", Path(name).name): Path(path) for name, path in found.items() if path.startswith("/")}
    paths = {target: path for target, path in paths.items() if not path.is_relative_to(packages)}
    loader = re.search(rb"/lib[\w/-]*/ld-[\w.+-]+", PYTHON.read_bytes()[:16384])
    if loader is None:
        remedy = "use a Python of Debian, Ubuntu or pyenv"
        raise ImageError(f"{PYTHON} names no loader, so its libraries cannot be found", remedy)
    path = Path(loader.group().decode())
    return {**files, **paths, path: path}


def write_archive(archive: tarfile.TarFile, files: Files) -> None:
    """Write an image's whole file system; links become what they point to, and root owns everything."""

    def add(name: str, mode: int, data: bytes | None) -> None:
        entry = tarfile.TarInfo(name)
        entry.mode, entry.type = mode, tarfile.DIRTYPE if data is None else tarfile.REGTYPE
        entry.size = len(data or b"")
        archive.addfile(entry, io.BytesIO(data or b""))

    def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "root", "root"
        return entry

    add("tmp", 0o1777, None)
    add("root", 0o700, None)
    add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/false\n")
    add("etc/group", 0o644, b"root:x:0:\n")
    for target, path in sorted(files.items()):
        archive.add(path.resolve(), str(target).lstrip("/"), recursive=False, filter=owned_by_root)


def make(client: docker.DockerClient, image: str, mark: str, files: Files, settings: Iterable[str]) -> None:
    """Import the files as an image, and remove the image that had the name before.

    In: a name with a tag; a mark of the content; all files; instructions of a Dockerfile beyond the common environment.
    """
    say(f"building the image {image} from this Python (some seconds)")
    before = client.images.list(name=image)
    common = [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()] + [f"LABEL {LABEL}={mark}"]
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            write_archive(archive, files)
        file.flush()
        answer = client.api.import_image_from_file(file.name, changes=[*common, *settings])
    repository, _, tag = image.partition(":")
    # Tagged apart: Podman's import takes a repository, but no tag.
    client.api.tag(json.loads(answer.splitlines()[-1])["status"], repository, tag)
    for old in before:
        try:
            client.images.remove(old.id)
        except APIError:
            pass  # a container still uses it
