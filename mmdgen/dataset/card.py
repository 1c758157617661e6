"""The dataset card: a README.md that says what the dataset is, how to read it, how it was made and what to mind.

Its head is YAML as Hugging Face reads it. However many models there are, it stays short: sources are summed up, a few
models are listed, and everything else is in provenance.jsonl.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mmdgen.dataset.credits import HINT_MEANINGS, HINT_TASKS, by_source, hint_counts, is_silent
from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.schema import COLOR, DEFLATE, SPLITS, ZSTD, fields

_MODELS_SHOWN = 40
_SOURCES_SHOWN = 40
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(manifest: Manifest, provenance: Iterable[Mapping[str, Any]] = (), *, command: str = "") -> str:
    """Return the text of the dataset's README.md (Markdown).

    `provenance` are the models' rows of provenance.jsonl: their `hints` are summed up, their `texts` counted, and who
    made them is quoted in a line.
    `command` is how the dataset was made, where the caller knows it; it must not contain paths of the machine.
    """
    rows = {str(row.get("sha256", "")): row for row in provenance}
    parts = [
        _head(manifest),
        _summary(manifest),
        _splits(manifest),
        _pose(manifest),
        _layout(manifest),
        _reading(manifest),
        _making(manifest, command),
        _models(manifest, rows),
        terms_section(manifest, rows),
        _notes(manifest),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _head(manifest: Manifest) -> str:
    samples = sum(manifest.samples(split) for split in SPLITS)
    size = next((name for most, name in _SIZES if samples < most), "1M<n<10M")
    lines = ["---", "pretty_name: Posed anime heads"]
    if is_procedural(manifest):
        lines.append("license: cc0-1.0")
    else:
        lines += ["license: other", "license_name: terms-of-the-models-authors"]
    lines += ["task_categories:", "- image-to-image", "tags:", "- anime", "- mmd", "- hdf5", "- mmdgen"]
    lines += ["size_categories:", f"- {size}", "viewer: false", "dataset_info:", "  splits:"]
    for split in SPLITS:
        shards = manifest.shards.get(split, ())
        if shards:
            lines += [f"  - name: {split}", f"    num_examples: {manifest.samples(split)}"]
            lines.append(f"    num_bytes: {sum(shard.bytes for shard in shards)}")
    return "\n".join([*lines, "---"])


def is_procedural(manifest: Manifest) -> bool:
    """Return whether mmdgen made all the characters itself."""
    return manifest.config.settings.get("characters") is not None


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

{samples:,} samples of {len(manifest.models):,} characters, {size_text(manifest.bytes)}.

A sample is three {size} x {size} RGBA pictures of one character and a pose vector: `rest` (facing front), `expression`
(the same with eyes and mouth as in the pose) and `posed` (the whole pose). This is the data that *Talking Head Anime
from a Single Image* is trained on: a network gets `rest` and the pose, and learns to draw the other two.{flow}

Made by mmdgen {manifest.code_version}. `preview.png` shows some samples."""


def _splits(manifest: Manifest) -> str:
    lines = ["## Splits", "", "| split | samples | characters | shards | size |", "|---|---:|---:|---:|---:|"]
    for split in SPLITS:
        shards = manifest.shards.get(split, ())
        if shards:
            size = size_text(sum(shard.bytes for shard in shards))
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


def terms_section(manifest: Manifest, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the section on credits and terms of use; `rows` are the models' rows of provenance.jsonl by sha256."""
    title = "## Credits and terms of use"
    if is_procedural(manifest):
        return f"{title}\n\nmmdgen made all the characters by itself (CC0 1.0): nobody has to be asked."
    if not rows:
        return ""
    used = [rows[model.sha256] for model in manifest.models if model.sha256 in rows]
    told = sum(not is_silent(row) for row in used)
    count = len(manifest.models)
    lines = [
        title,
        "",
        f"The characters belong to their authors. {told:,} of {count:,} came with a comment or a "
        "readme: their words are in `provenance.jsonl`. Read them before you use or pass on this dataset; many authors "
        "allow neither redistribution nor commercial use, and some no machine learning.",
        "",
        *_before_publishing(hint_counts(used), count - told),
        "",
        "Where the characters come from, and what was found about their makers:",
        "",
        "| from | split | characters | samples | hints | credits |",
        "|---|---|---:|---:|---|---|",
    ]
    sources = by_source(manifest.models, rows)
    for entry in sources[:_SOURCES_SHOWN]:
        hints = ", ".join(f"{hint} {number}" for hint, number in sorted(entry.hints.items()))
        credits = " / ".join(line for line, _ in entry.lines.most_common(2))
        lines.append(
            f"| {_cell(entry.source) or '-'} | {entry.split} | {entry.models:,} | {entry.samples:,} | {_cell(hints)} | "
            f"{_cell(credits)} |"
        )
    if len(sources) > _SOURCES_SHOWN:
        lines += ["", f"... and {len(sources) - _SOURCES_SHOWN:,} more folders: see `provenance.jsonl`."]
    return "\n".join(lines)


def _before_publishing(counts: Mapping[str, int], silent: int) -> list[str]:
    """Return lines on what has to be asked for, by what was found."""
    lines = [
        "**Before you publish or train:**",
        "",
        "| found by keywords: hints for where to look first, not legal findings | characters | what to do |",
        "|---|---:|---|",
    ]
    for hint, number in sorted(counts.items()):
        meaning, task = HINT_MEANINGS.get(hint, hint), HINT_TASKS.get(hint, "read what the authors say")
        lines.append(f"| {_cell(meaning)} | {number:,} | {_cell(task)} |")
    lines.append(f"| no word about makers or terms | {silent:,} | find out who made them; silence is no permission |")
    return [
        *lines,
        "",
        "An author who asks to be left out must be: `mmdgen remove-model` takes a model out of the dataset.",
    ]


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
    if manifest.removed:
        notes.append(
            f"Characters that were taken out after the dataset was made: {len(manifest.removed):,}. Only the hashes of "
            "their files are kept, in manifest.json and plan.json."
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


def size_text(count: float) -> str:
    """Return a number of bytes in words."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"


def _cell(text: object) -> str:
    """Return text fit for a cell of a Markdown table: one line, no bar, no markup from a model's name."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\|`*_<>[]" else character for character in plain)
