"""Builds the demo's image without a registry: this Python, the operators' packages and the libraries they need.

Usage: build.py     (with the Python of cpost's virtual environment; prints nothing when there is nothing to do)
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import docker
from docker.errors import APIError, DockerException, ImageNotFound

DEMO = Path(__file__).resolve().parent.parent
CACHE = DEMO / ".cache"
PACKAGES = CACHE / "packages"
REQUIREMENTS = DEMO / "requirements.txt"
NAME, TAG, LABEL = "cpost-demo", "1", "cpost.demo.content"
PYTHON = Path(sys.executable).resolve()
STDLIB = Path(sysconfig.get_path("stdlib"))
HOME = Path("/opt/python")
ENVIRONMENT = {
    "PATH": f"{HOME}/bin",
    "PYTHONHOME": str(HOME),
    "PYTHONPATH": "/opt/packages",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/lib",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",  # no operator uses it; its idle threads would still spin at the start
}
LEFT_OUT_FOLDERS = {
    *("test", "benchmarks", "include", "bin", "site-packages", "dist-packages"),
    *("idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"),
}
LEFT_OUT_FILES = re.compile(r"(config-\d|test_|(_tkinter|_test|_ctypes_test|xx).*\.so$|.*\.(a|pyi|h|c|opt-[12]\.pyc)$)")

Files = dict[Path, Path]  # the path in the image -> the file here


def fail(problem: str, remedy: str) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    print(f"cpost demo: {problem}\n  what to do: {remedy}", file=sys.stderr)
    sys.exit(5)


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"cpost demo: {text}", flush=True)


def install_packages() -> None:
    """Install the operators' packages into the cache, unless they are there for these requirements and this Python."""
    wanted = f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {PYTHON} {sys.version}"
    stamp = PACKAGES / "installed-for"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say("installing the operators' packages (pip)")
    shutil.rmtree(PACKAGES, ignore_errors=True)
    CACHE.mkdir(exist_ok=True)
    options = ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(PACKAGES), "-r", str(REQUIREMENTS)]
    pip = subprocess.run([sys.executable, "-m", "pip", "install", *options], capture_output=True, text=True)
    if pip.returncode:
        sys.stderr.write(pip.stdout[-2000:] + pip.stderr[-2000:])
        fail("pip could not install the packages", "look at pip's words above; behind a proxy set HTTPS_PROXY")
    stamp.write_text(wanted)


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


def own_files() -> Files:
    """Collect the interpreter, the standard library, the packages and the operators."""
    files = {HOME / "bin" / "python3": PYTHON}
    files.update(tree(STDLIB, HOME / "lib" / STDLIB.name))
    files.pop(HOME / "lib" / STDLIB.name / "sitecustomize.py", None)
    files.update(tree(PACKAGES, Path("/opt/packages")))
    files.update((Path("/operators", path.name), path) for path in (DEMO / "operators").glob("*.py"))
    return files


def content() -> str:
    """Name the image's content by one hash over all that decides it, the same in every clone."""
    texts = [sys.version, (PACKAGES / "installed-for").read_text(), Path(__file__).read_text()]
    texts += [path.read_text() for path in sorted((DEMO / "operators").glob("*.py"))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def needed_by(binary: Path) -> list[tuple[str, str]]:
    """Ask the loader which libraries a program or a library needs, and where they lie here."""
    answer = subprocess.run(["ldd", str(binary)], capture_output=True, text=True)
    return re.findall(r"^\s*(\S+) => (/\S+)", answer.stdout, re.MULTILINE)


def libraries(binaries: Iterable[Path]) -> Files:
    """Collect the system's libraries that any of the files needs, and the loader."""
    with ThreadPoolExecutor() as pool:
        found = dict(pair for pairs in pool.map(needed_by, binaries) for pair in pairs)
    files = {Path("/lib", Path(name).name): Path(path) for name, path in found.items()}
    files = {target: path for target, path in files.items() if not path.is_relative_to(PACKAGES)}
    loader = re.search(rb"/lib[\w/-]*/ld-[\w.+-]+", PYTHON.read_bytes()[:16384])
    if loader is None:
        fail(f"{PYTHON} names no loader, so its libraries cannot be found", "use a Python of Debian, Ubuntu or pyenv")
    path = Path(loader.group().decode())
    return {**files, path: path}


def write_archive(archive: tarfile.TarFile, files: Files) -> None:
    """Write the image's whole file system; links become what they point to, and root owns everything."""

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


def build(client: docker.DockerClient, files: Files, mark: str) -> None:
    """Import the files as an image, and remove the image that had the name before."""
    before = client.images.list(name=f"{NAME}:{TAG}")
    binaries = [path for path in files.values() if path == PYTHON or ".so" in path.suffixes]
    settings = [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()]
    settings += ["WORKDIR /operators", f"LABEL {LABEL}={mark}", 'CMD ["python3"]']
    with tempfile.NamedTemporaryFile(dir=CACHE, suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            write_archive(archive, {**files, **libraries(binaries)})
        file.flush()
        client.api.import_image_from_file(file.name, repository=NAME, tag=TAG, changes=settings)
    for image in before:
        try:
            client.images.remove(image.id)
        except APIError:
            pass  # a container still uses it


def main() -> None:
    """Install the packages and build the image, each only if something changed."""
    install_packages()
    mark = content()
    try:
        client = docker.from_env(timeout=600)
        try:
            current = client.images.get(f"{NAME}:{TAG}").labels.get(LABEL)
        except ImageNotFound:
            current = None
        if current != mark:
            say(f"building the image {NAME}:{TAG} from this Python (some seconds)")
            build(client, own_files(), mark)
    except DockerException as error:
        fail(f"the Docker engine did not take the image: {error}", "see that the disk has 1 GB free, then start again")


if __name__ == "__main__":
    main()
