"""Operating system, kernel and the name the kernel has for this host."""

from __future__ import annotations

import shlex

from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import OperatingSystem, Unknown

_MAXIMUM_ARGUMENTS = 4096


def observe_operating_system(source: Source) -> tuple[OperatingSystem, list[Unknown]]:
    """From os-release and /proc."""
    look = Look()
    release = os_release(look.text(source.etc / "os-release", "operatingSystem.name"))
    system = OperatingSystem(
        name=release.get("PRETTY_NAME") or release.get("NAME", ""),
        id=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        kernel=look.text(source.proc / "sys/kernel/osrelease", "operatingSystem.kernel"),
        kernel_arguments=look.text(source.proc / "cmdline", "operatingSystem.kernelArguments")[
            :_MAXIMUM_ARGUMENTS
        ],
        hostname=look.text(source.proc / "sys/kernel/hostname", "operatingSystem.hostname"),
    )
    return system, look.unknown


def os_release(text: str) -> dict[str, str]:
    """Fields of an os-release file: shell assignments; a line that is none is passed over, as its
    specification asks."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        fields[name] = words[0] if words else ""
    return fields
