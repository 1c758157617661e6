"""The dataset card: a README.md that says what the dataset is, how to read it, how it was made and what to mind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.schema import COLOR, DEFLATE, SPLITS, ZSTD, fields

HINT_MEANINGS = {
    "no_ai": "words against machine learning or generative AI",
    "no_commercial": "words against commercial use",
    "no_redistribution": "words against redistribution",
    "r18": "words about adult use",
}

_MODELS_SHOWN = 40


def dataset_card(manifest: Manifest, provenance: Iterable[Mapping[str, Any]] = (), *, command: str = "") -> str:
    """Return the text of the dataset's README.md (Markdown).

    `provenance` are the models' rows of provenance.jsonl: their `hints` are summed up and their `texts` counted.
    `command` is how the dataset was made, where the caller knows it; it must not contain paths of the machine.
    """
    rows = {str(row.get("sha256", "")): row for row in provenance}
    parts = [
        _summary(manifest),
        _splits(manifest),
        _pose(manifest),
        _layout(manifest),
        _reading(manifest),
        _making(manifest, command),
        _models(manifest, rows),
        _terms(manifest, rows),
        _notes(manifest),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _summary(manifest: Manifest) -> str:
    size = manifest.config.image_size
    samples = sum(manifest.samples(split) for split in SPLITS)
    flow = ""
    if manifest.config.flow:
        flow = (
            "\n`flow` says by how many pixels what `posed` shows is displaced in `expression`, `visibility` whether it "
            "is seen there."
        )
    return f"""# Posed anime heads

{samples:,} samples of {len(manifest.models):,} characters, {_size(manifest.bytes)}.

A sample is three {size} x {size} RGBA pictures of one character and a pose vector: `rest` (facing front), `expression`
(the same with eyes and mouth as in the pose) and `posed` (the whole pose). This is the data that *Talking Head Anime
from a Single Image* is trained on: a network gets `rest` and the pose, and learns to draw the other two.{flow}

Made by mmdgen {manifest.code_version}. `preview.png` shows some samples."""


def _splits(manifest: Manifest) -> str:
    lines = ["## Splits", "", "| split | samples | characters | shards | size |", "|---|---:|---:|---:|---:|"]
    for split in SPLITS:
        shards = manifest.shards.get(split, ())
        if shards:
            size = _size(sum(shard.bytes for shard in shards))
            lines.append(
                f"| {split} | {manifest.samples(split):,} | {manifest.model_count(split):,} | {len(shards)} | {size} |"
            )
    return "\n".join([*lines, "", "No character is in two splits."])


def _pose(manifest: Manifest) -> str:
    vocabulary = manifest.config.vocabulary
    lines = [
        f"## Pose vector `{vocabulary.name}`",
        "",
        "| column | name | range | at rest | meaning |",
        "|---:|---|---|---:|---|",
    ]
    for column, p in enumerate(vocabulary.parameters):
        lines.append(f"| {column} | `{p.name}` | {p.low:g} .. {p.high:g} | {p.rest:g} | {_cell(p.meaning)} |")
    return "\n".join(lines)


def _layout(manifest: Manifest) -> str:
    lines = [
        "## Files",
        "",
        "    manifest.json                 what belongs to the dataset: shards with SHA-256, characters, configuration",
        "    <split>/shard-00000.h5        HDF5; each opens on its own",
        "    plan.json, provenance.jsonl, failures.jsonl",
        "",
        "Each shard has N samples of M characters:",
        "",
        "| HDF5 dataset | type | shape | meaning |",
        "|---|---|---|---|",
    ]
    for spec in fields(manifest.config):
        shape = ", ".join([spec.rows, *map(str, spec.shape)])
        columns = f" Columns: {', '.join(spec.columns)}." if spec.columns and spec.path != "pose" else ""
        lines.append(f"| `{spec.path}` | {_TYPES[spec.dtype]} | [{shape}] | {_cell(spec.meaning)}{columns} |")
    return "\n".join([*lines, "", f"Pictures: {COLOR}."])


def _reading(manifest: Manifest) -> str:
    split = next((split for split in SPLITS if manifest.shards.get(split)), SPLITS[0])
    shards = manifest.shards.get(split, ())
    file = shards[0].file if shards else f"{split}/shard-00000.h5"
    config = manifest.config
    residual = " + rest  # stored as a difference; u8 wraps around" if config.residual else ""
    rest, posed, undo, plugin = 'shard["models/rest"][model]', 'shard["posed"][0]', "", ""
    packages = "nothing but h5py"
    if config.planes:
        rest, posed = f"joined({rest})", f"joined({posed})"
        undo = """


def joined(planes):  # r - g, g, b - g, a; of each row its difference from the one above it; u8 wraps around
    planes = np.cumsum(planes, axis=1, dtype=np.uint8)
    planes[[0, 2]] += planes[1]
    return planes.transpose(1, 2, 0)

"""
    if config.codec == ZSTD:
        plugin, packages = "\nimport hdf5plugin  # HDF5's filter zstd", "h5py and hdf5plugin"
    plugin += "\nimport numpy as np" if config.planes or config.flow else ""
    flow = ""
    if manifest.config.flow:
        flow = """
    flow = np.cumsum(shard["flow"][0], axis=1, dtype=shard["flow"].dtype) / 64  # pixels
    visibility = shard["visibility"][0]  # 0 no surface, 1 hidden in expression, 2 visible there"""
    return f"""## Reading

With mmdgen, or with {packages}:

```python
from mmdgen.dataset.reader import Dataset
for sample in Dataset(".", "{split}"):
    sample.rest, sample.expression, sample.posed, sample.pose, sample.model.sha256

import h5py{plugin}{undo}
with h5py.File("{file}") as shard:
    model = shard["model"][0]
    rest, pose, posed = {rest}, shard["pose"][0], {posed}
    expression = shard["expression"][0]{residual}{flow}
```

`mmdgen verify .` checks every file, count and picture."""


def _making(manifest: Manifest, command: str) -> str:
    lines = ["## How it was made", ""]
    if command:
        lines += [f"    {command}", ""]
    lines += ["| setting | value |", "|---|---|"]
    config = manifest.config
    settings = {"image size": config.image_size, "expression encoding": config.expression_encoding}
    settings |= {"posed encoding": config.posed_encoding} if config.planes else {}
    settings |= {"codec": config.codec} if config.codec != DEFLATE else {}
    for name, value in {**settings, **dict(sorted(manifest.config.settings.items()))}.items():
        if value is None:  # not asked for
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        lines.append(f"| {_cell(name)} | {_cell(text)} |")
    renderer = manifest.gl.get("renderer") or manifest.gl.get("GL_RENDERER")
    if renderer:
        lines.append(f"| renderer | {_cell(str(renderer))} |")
    return "\n".join(lines)


def _models(manifest: Manifest, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "## Characters",
        "",
        "| character | from | split | samples | SHA-256 of the model |",
        "|---|---|---|---:|---|",
    ]
    for model in manifest.models[:_MODELS_SHOWN]:
        lines.append(
            f"| {_cell(model.name) or '-'} | {_cell(model.source) or '-'} | {model.split} | {model.samples:,} | "
            f"`{model.sha256[:16]}` |"
        )
    if len(manifest.models) > _MODELS_SHOWN:
        lines += ["", f"... and {len(manifest.models) - _MODELS_SHOWN:,} more: see `models` in manifest.json."]
    return "\n".join(lines)


def _terms(manifest: Manifest, rows: Mapping[str, Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    used = [rows[model.sha256] for model in manifest.models if model.sha256 in rows]
    texts = sum(bool(row.get("texts") or row.get("comment")) for row in used)
    lines = [
        "## Credits and terms of use",
        "",
        f"The characters belong to their authors. {texts:,} of {len(manifest.models):,} came with a comment or a "
        "readme: their words are in `provenance.jsonl`. Read them before you use or pass on this dataset; many authors "
        "allow neither redistribution nor commercial use, and some no machine learning.",
    ]
    counts = Counter(str(hint) for row in used for hint in row.get("hints", ()))
    if counts:
        lines += [
            "",
            "Found by keywords; hints for where to look first, not legal findings:",
            "",
            "| hint | characters |",
            "|---|---:|",
        ]
        for hint, count in sorted(counts.items()):
            lines.append(f"| {_cell(HINT_MEANINGS.get(hint, hint))} | {count:,} |")
    return "\n".join(lines)


def _notes(manifest: Manifest) -> str:
    notes = []
    if manifest.rejected:
        reasons = Counter(_reason(row) for row in manifest.rejected)
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        notes.append(f"Models that could not be used: {told}. manifest.json lists them.")
    if manifest.failures:
        notes.append(
            f"Models or samples that failed while rendering: {len(manifest.failures):,}. manifest.json lists them."
        )
    notes += [
        "Heads and morphs were found automatically where no person had marked them: a few characters may close an eye "
        "oddly or be framed a little high or low.",
        "Rendered characters are no drawings: a network trained on this alone knows the shading and the styles of "
        "these models, not those of all artists.",
        "The same plan gives the same bytes on one machine; another graphics driver may round pixels differently.",
    ]
    return "\n".join(["## Notes", "", *(f"- {note}" for note in notes)])


_TYPES = {"u1": "u8", "i2": "i16", "f4": "f32", "f8": "f64", "i4": "i32", "text": "UTF-8 text"}


def _reason(row: Mapping[str, Any]) -> str:
    return str(row.get("code") or row.get("reason") or "unknown")


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def _cell(text: object) -> str:
    """Return text fit for a cell of a Markdown table: one line, no bar, no markup from a model's name."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\|`*_<>[]" else character for character in plain)
