"""Loading a model file of any supported format."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmdgen.errors import FormatError, ModelError
from mmdgen.formats.pmd import read_pmd
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.sniff import sniff
from mmdgen.model.assemble import assemble
from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.from_pmd import draft_from_pmd
from mmdgen.model.from_pmx import draft_from_pmx
from mmdgen.model.records import Model

# Real models have up to about 100 MB; this keeps a wrongly named film from filling the memory.
MAX_FILE_SIZE = 1 << 30


def load_model(path: Path) -> Model:
    """Return the `Model` in the file `path`; its textures are looked for in the file's folder.

    The format is told by content, never by extension. Damage that can be repaired is, and is listed in
    `Model.diagnostics`.
    Raises `FormatError` for a damaged file or none of a known format, `ModelError` for one that cannot be read
    (``file_unreadable``, ``file_too_large``) or drawn (see `assemble`).
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_SIZE:
            raise ModelError("file_too_large", f"{path}: {size} bytes; model files have at most {MAX_FILE_SIZE}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError("file_unreadable", f"{path}: cannot be read: {error.strerror or error}") from error
    return model_from_bytes(data, path)


def model_from_bytes(data: bytes, path: Path) -> Model:
    """Return the `Model` in `data` as if it was read from `path`, beside which textures are looked for."""
    path = Path(path)
    diagnostics = Diagnostics()
    kind = sniff(data)
    if kind == "pmx":
        pmx = read_pmx(data, str(path))
        if pmx.sections is not None:
            diagnostics.add("file_truncated", "file", -1, f"the file ends {len(pmx.tail)} bytes into a section")
        draft = draft_from_pmx(pmx)
    elif kind == "pmd":
        pmd = read_pmd(data, str(path))
        if pmd.truncated:
            diagnostics.add("file_truncated", "file", -1, f"the file ends {len(pmd.tail)} bytes into a section")
        if len(pmd.indices) % 3:
            diagnostics.add("face_remainder", "faces", len(pmd.indices) // 3, f"{len(pmd.indices)} vertex indices")
        draft = draft_from_pmd(pmd)
    else:
        what = "is empty" if not data else f"is a {kind.upper()} file" if kind else f"begins with {bytes(data[:8])!r}"
        raise FormatError(f"this is no PMX or PMD model: the file {what}", file=str(path))
    return assemble(draft, model_id=hashlib.sha256(data).hexdigest(), path=path, diagnostics=diagnostics)
