"""What a Compose service has mounted: folders of the host, volumes, configs, secrets.

Nothing of the user's is written to: a folder of the host is read-only, or a fresh one where there is nothing to lose.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cpost.definition import grammar, naming
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Text
from cpost.definition.variables import Variables
from cpost.model import File, Volume

# Whoever sees these sees the system's own state, and sockets by which it can be changed even where they are read-only.
_SYSTEM = ("/proc", "/sys", "/dev", "/run")
_TOO_MUCH = ("/", "/var")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all services of a file share.

    Attributes:
        folder: where the file lies; relative paths start there.
    """

    top: Section
    folder: str
    variables: Variables
    findings: Findings


class MountReader:
    """Reads the mounts of one service.

    Args:
        refuse: is told why the service cannot be run.
    """

    def __init__(self, section: Section, around: Surroundings, refuse: Callable[[Section, str, str], None]) -> None:
        self._section = section
        self._around = around
        self._refuse = refuse

    def read(self) -> tuple[Volume, ...]:
        """All of them; the later of two at one path wins."""
        found: dict[str, Volume] = {}
        for volume in (*self._volumes(), *self._stored("configs", "/"), *self._stored("secrets", "/run/secrets/")):
            found[volume.path] = volume
        return tuple(found.values())

    def _volumes(self) -> Iterator[Volume]:
        for number, node in enumerate(self._section.items("volumes")):
            if isinstance(node, Fields):
                made = self._long(Section(node, f"a volume of {self._section.label}", self._around.findings), number)
            else:
                text = self._section.value(node, "a volume", grammar.any_text)
                made = self._short(node, text, number) if isinstance(node, Text) and text else None
            if made is not None:
                yield made
        tmpfs = self._section.fields.get("tmpfs")
        for node in [tmpfs] if isinstance(tmpfs, Text) else self._section.items("tmpfs"):
            path = self._section.value(node, "tmpfs", lambda text: grammar.folder(text.split(":")[0]))
            if path is not None:
                yield self._on_disk(path, self._section, "tmpfs")

    def _on_disk(self, path: str, section: Section, key: str) -> Volume:
        section.warn(key, f"tmpfs {quoted(path)} is a folder on disk here: what lies in it is not counted as memory")
        return Volume(naming.safe(f"tmpfs.{self._section.raw('name')}.{path}"), path)

    def _short(self, node: Text, text: str, number: int) -> Volume | None:
        parts = text.split(":")
        target = self._section.value(
            Text(parts[1] if len(parts) > 1 else parts[0], node.origin), "a volume", grammar.folder
        )
        if target is None:
            return None
        read_only = "ro" in (parts[2].split(",") if len(parts) > 2 else ())
        if len(parts) == 1:
            return self._anonymous(target, number)
        if parts[0][:1] in ("/", ".", "~"):
            return self._bound(parts[0], target, read_only, node)
        return self._named(parts[0], target, read_only, node)

    def _anonymous(self, target: str, number: int) -> Volume:
        return Volume(naming.safe(f"anonymous{number}.{self._section.raw('name')}"), target)

    def _long(self, section: Section, number: int) -> Volume | None:
        target = section.read("target", grammar.folder)
        source, kind = section.raw("source"), section.raw("type") or "volume"
        node = section.fields.get("source")
        if target is None:
            section.require("target", "write where the container sees it")
            return None
        if kind == "tmpfs":
            return self._on_disk(target, section, "target")
        if kind not in ("volume", "bind"):
            self._refuse(section, "type", f"a mount of type {quoted(kind)} is not made here")
            return None
        if not source or not isinstance(node, Text):
            return self._anonymous(target, number)
        read_only = section.raw("read_only") == "true"
        if kind == "bind":
            return self._bound(source, target, read_only, node)
        options = section.section("volume", "volume")
        part = options.read("subpath", grammar.relative_path) if options else None
        named = self._named(source, target, read_only, node)
        return replace(named, part=part or "") if named else None

    def _named(self, name: str, target: str, read_only: bool, node: Text) -> Volume | None:
        declared = self._around.top.section("volumes", "volumes")
        names = [key.value for key, _ in declared.fields.entries] if declared else []
        if name not in names:
            message = f"{self._section.label} mounts volume {quoted(name)}, which is not declared"
            self._around.findings.error(node.origin, message, choice(name, names, "volumes are"))
            return None
        described = declared.section(name, f"volume {name}") if declared else None
        if described is not None and described.raw("external") == "true":
            self._around.findings.warn(node.origin, f"volume {quoted(name)} is from elsewhere; here it is fresh, empty")
        return Volume(naming.safe(f"volume.{name}"), target, read_only)

    # ------------------------------------------------------------ folders of the host

    def _bound(self, source: str, target: str, read_only: bool, node: Text) -> Volume | None:
        path = self._path(source)
        fresh = Volume(naming.safe(f"bind.{path}"), target, read_only)
        warn = self._around.findings.warn
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
            is_empty = stat.S_ISDIR(mode) and not os.listdir(path)  # noqa: PTH208
        except FileNotFoundError:
            warn(node.origin, f"{quoted(source)} is not there: {self._section.label} gets a fresh, empty folder")
            return fresh
        except (OSError, ValueError) as error:
            self._around.findings.error(node.origin, f"{quoted(source)} cannot be read: {error}", "check the path")
            return None
        if _is_system(path) or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            section = Section(Fields((), node.origin), self._section.label, self._around.findings)
            self._refuse(section, "", f"it is given {quoted(source)} of the host, which cpost does not hand out")
            return None
        if not read_only and is_empty:
            warn(node.origin, f"what is written to {quoted(source)} goes to a fresh folder, and with the run")
            return fresh
        if not read_only:
            warn(node.origin, f"{quoted(source)} is mounted read-only here: cpost changes nothing of yours")
        return replace(fresh, read_only=True, source=path)

    def _path(self, source: str) -> str:
        return os.path.abspath(os.path.join(self._around.folder, os.path.expanduser(source)))  # noqa: PTH100, PTH111, PTH118

    # ------------------------------------------------------------ configs and secrets

    def _stored(self, key: str, folder: str) -> Iterator[Volume]:
        """What a service has of the file's configs or secrets."""
        declared = self._around.top.section(key, key)
        for node in self._section.items(key):
            item = Section(node, f"one of {key}", self._around.findings) if isinstance(node, Fields) else None
            name = item.raw("source") if item else self._section.value(node, key, grammar.any_text) or ""
            target = (item.raw("target") if item else "") or name
            described = declared.section(name, f"{key} {quoted(name)}") if declared else None
            if described is None:
                self._section.error(key, f"{quoted(name)} is not declared under {key}", "declare it, or take it out")
                continue
            full = target if target.startswith("/") else folder + target
            path = self._section.value(Text(full, node.origin), key, grammar.folder)
            if path is None:
                continue
            volume = self._content(described, name, path)
            if volume is None:
                self._refuse(self._section, key, f"{quoted(name)} of {key} is not in the file, nor beside it")
            else:
                yield volume

    def _content(self, described: Section, name: str, path: str) -> Volume | None:
        made = Volume(naming.safe(f"stored.{name}"), path, read_only=True)
        if described.has("file") and Path(source := self._path(described.raw("file"))).is_file():
            return replace(made, source=source)
        value = described.raw("content") if described.has("content") else None
        if described.has("environment"):
            value = self._around.variables.get(described.raw("environment"))
        return replace(made, part="content", files=(File("content", value.encode()),)) if value is not None else None


def _is_system(path: str) -> bool:
    """Whether a path leads to what belongs to the system."""
    real = os.path.realpath(path)
    return real in _TOO_MUCH or any(real == each or real.startswith(each + "/") for each in _SYSTEM)
