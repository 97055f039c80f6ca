"""Objects read from files: YAML or JSON, several documents each, directories, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from roost.cli.problems import Misused

LARGEST = 16 * 1024 * 1024
MOST = 5000
_SUFFIXES = (".yaml", ".yml", ".json")


class Document(msgspec.Struct, frozen=True):
    """One object and where it was read."""

    body: dict[str, Any]
    source: str

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The namespace it names; empty when it names none."""
        return str(self.body["metadata"].get("namespace") or "")


def load(names: Sequence[str]) -> list[Document]:
    """Every object in the files, in order; Lists are taken apart. Raises Misused with file and number."""
    documents: list[Document] = []
    for file, text in _texts(names):
        documents += parse(text, file)
        if len(documents) > MOST:
            raise Misused(f"the files hold more than {MOST} objects", "apply them in several parts")
    if not documents:
        raise Misused(f"no object in {', '.join(names)}")
    return documents


def parse(text: bytes, source: str) -> list[Document]:
    """The objects in a text. Raises Misused."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents: list[Document] = []
    try:
        for number, raw in enumerate(yaml.load_all(text, Loader=loader), 1):
            if raw is not None:
                documents += _check(raw, f"{source}, document {number}")
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Misused(f"{source}{line} is not YAML: {problem}") from error
    return documents


def _check(raw: Any, source: str) -> list[Document]:
    if not isinstance(raw, dict):
        raise Misused(f"{source} is not an object but {type(raw).__name__}")
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(raw))
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str):
            raise Misused(
                f"{source} has no {field}", "an object starts with apiVersion: roost.edge/v1 and its kind"
            )
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        return [d for n, item in enumerate(body["items"], 1) for d in _check(item, f"{source}, item {n}")]
    meta = body.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
        raise Misused(f"{source} ({body['kind']}) has no metadata.name")
    return [Document(body, source)]


def _texts(names: Sequence[str]) -> Iterable[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            yield "standard input", _bounded(sys.stdin.buffer.read(LARGEST + 1), "standard input")
            continue
        path = Path(name)
        files = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            if not files:
                raise Misused(f"directory {name} has no .yaml, .yml or .json file")
        for file in files:
            try:
                with file.open("rb") as stream:
                    text = stream.read(LARGEST + 1)
            except OSError as error:
                raise Misused(f"{file} can't be read: {(error.strerror or str(error)).lower()}") from error
            yield str(file), _bounded(text, str(file))


def _bounded(text: bytes, source: str) -> bytes:
    if len(text) > LARGEST:
        raise Misused(f"{source} is larger than {LARGEST} bytes")
    return text
