"""What goes with every export beside its pictures: a card, the models, their authors' words, a statement on terms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmdgen.dataset.card import is_procedural, terms_section
from mmdgen.dataset.export_parquet import features
from mmdgen.dataset.export_rows import Job, JobResult, atomic_stream
from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import COLOR
from mmdgen.errors import DatasetError

_STATEMENT = (
    "The characters in these pictures belong to their authors, whose words are in provenance.jsonl beside the export. "
    "Read them before you use or pass on these pictures: many authors allow neither redistribution nor commercial use, "
    "and some no machine learning. An author who asks to be left out must be: `mmdgen remove-model` takes a model out "
    "of the dataset, which is then exported again."
)

_FREE = "mmdgen made all the characters in these pictures by itself (CC0 1.0): nobody has to be asked."

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def statement(manifest: Manifest) -> str:
    """Return what everybody who gets pictures of the dataset should know about their authors, in a few sentences."""
    return _FREE if is_procedural(manifest) else _STATEMENT


def write_models(jobs: Sequence[Job], results: Sequence[JobResult], path: Path) -> dict[str, int]:
    """Write a line of JSON for each exported model, by split and sha256; return their samples by sha256."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for job, result in zip(jobs, results, strict=True):
        for sha256, (entry, samples) in result.models.items():
            row = found.setdefault((job.split, sha256), {**asdict(entry), "split": job.split, "samples": 0})
            row["samples"] += samples
    with atomic_stream(path) as stream:
        for _, row in sorted(found.items()):
            stream.write((json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))
    return {sha256: row["samples"] for (_, sha256), row in found.items()}


def used_provenance(path: Path | RemotePath, models: Mapping[str, int]) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the lines of provenance.jsonl about `models`, as they are and read; none where there is no such file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        rows = [(line + b"\n", json.loads(line)) for line in lines if line]
        return [(line, row) for line, row in rows if row.get("sha256") in models]
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{path}: is damaged: {error}") from error


def export_card(
    manifest: Manifest,
    format: str,
    samples: Mapping[str, int],
    models: Mapping[str, int],
    size: int,
    provenance: Iterable[Mapping[str, Any]],
) -> str:
    """Return the README.md of an export: a head in YAML that Hugging Face reads, then what people should know.

    `samples` are by split, `models` samples by sha256, `size` is in bytes, `provenance` the models' rows.
    """
    total = sum(samples.values())
    pixels = manifest.config.image_size
    exported = tuple(replace(m, samples=models[m.sha256]) for m in manifest.models if m.sha256 in models)
    rows = {str(row.get("sha256", "")): row for row in provenance}
    head = "\n".join(["---", *_yaml(manifest, format, samples, size), "---"])
    splits = "\n".join(["| split | samples |", "|---|---:|", *(f"| {s} | {count:,} |" for s, count in samples.items())])
    parameters = [
        f"| {column} | `{p.name}` | {p.low:g} .. {p.high:g} | {p.rest:g} | {_cell(p.meaning)} |"
        for column, p in enumerate(manifest.config.vocabulary.parameters)
    ]
    parts = [
        head,
        "# Posed anime heads",
        f"{total:,} samples of {len(models):,} characters: a pose and three {pixels} x {pixels} RGBA pictures each, "
        "`rest` (facing front), `expression` (the same with eyes and mouth as in the pose), `posed` (the whole pose). "
        f"Pictures: {COLOR}.",
        splits,
        "No character is in two splits.",
        _LAYOUTS[format],
        _flow(manifest, format),
        "\n".join(
            ["## Pose", "", "| column | name | range | at rest | meaning |", "|---:|---|---|---:|---|", *parameters]
        ),
        terms_section(replace(manifest, models=exported), rows),
        "" if is_procedural(manifest) else _STATEMENT,
        f"Exported by mmdgen from a dataset of mmdgen {manifest.code_version}. `export.json` lists the "
        f"{'tables' if format == 'png' else 'files'} with their SHA-256, `models.jsonl` the characters with head "
        "bounds and lights.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_LAYOUTS = {
    "parquet": """## Files

    data/<split>-00000-of-00001.parquet

Columns: `rest`, `expression`, `posed` (pictures), `pose` (f32), `model` (SHA-256 of the model's file), `name`,
`source` (the folder it came from), `terms` (hints found by words), `split`, `index`.

```python
from datasets import load_dataset
data = load_dataset("PATH OF THIS FOLDER")
sample = data["train"][0]  # PIL images and a pose
```""",
    "webdataset": """## Files

    <split>-000000.tar      NNNNNNNN.rest.png NNNNNNNN.expression.png NNNNNNNN.posed.png NNNNNNNN.json
    sizes.json              samples by tar file

```python
import webdataset as wds
data = wds.WebDataset("train-{000000..000009}.tar", shardshuffle=False).decode("rgba8")
for sample in data.to_tuple("rest.png", "expression.png", "posed.png", "json"):
    ...
```""",
    "png": """## Files

    <split>/<first 16 digits of the model's SHA-256>/rest.png NNNNNNNN-expression.png NNNNNNNN-posed.png
    <split>/metadata.jsonl      pose, model and files of each sample, as Hugging Face's image folders want it
    <split>/poses.csv           the same as a table

```python
from datasets import load_dataset
data = load_dataset("imagefolder", data_dir="PATH OF THIS FOLDER")
```""",
}


def _flow(manifest: Manifest, format: str) -> str:
    if not manifest.config.flow:
        return ""
    where = {
        "parquet": "The columns `flow` and `visibility` are .npy files",
        "webdataset": "`flow.npy` and `visibility.npy`",
        "png": "`NNNNNNNN-flow.npy` and `NNNNNNNN-visibility.npy`",
    }[format]
    how = {
        "parquet": "`numpy.load(io.BytesIO(content))`",
        "webdataset": "arrays once `decode` has been called",
        "png": "`numpy.load(path)`",
    }[format]
    return (
        f"## Flow\n\n{where} ({how}): `flow / 64` is by how many pixels (dx, dy) what a "
        "pixel of `posed` shows is displaced in `expression`; `visibility` is 0 where there is no surface, 1 where "
        "`expression` does not show it, 2 where it does."
    )


def _yaml(manifest: Manifest, format: str, samples: Mapping[str, int], size: int) -> Iterator[str]:
    """Yield the lines of the card's head: what it is for people who search, and where the splits lie."""
    total = sum(samples.values())
    yield "pretty_name: Posed anime heads"
    if is_procedural(manifest):
        yield "license: cc0-1.0"
    else:
        yield "license: other"
        yield "license_name: terms-of-the-models-authors"
        yield "license_link: provenance.jsonl"
    yield "task_categories:\n- image-to-image"
    yield "tags:\n- anime\n- mmdgen"
    yield "size_categories:"
    yield f"- {next((name for limit, name in _SIZES if total < limit), '1M<n<10M')}"
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split in samples:
        yield f"  - split: {split}"
        yield f"    path: {_PATHS[format].format(split=split)}"
    if format == "parquet":
        yield "dataset_info:"
        yield "  features:"
        for name, feature in features(manifest.config).items():
            yield f"  - name: {name}"
            if feature["_type"] == "Sequence":
                yield f"    sequence: {feature['feature']['dtype']}"
                yield f"    length: {feature['length']}"
            else:
                yield f"    dtype: {feature.get('dtype', 'image')}"
        yield "  splits:"
        for split, count in samples.items():
            yield f"  - name: {split}"
            yield f"    num_bytes: {round(size * count / total)}"
            yield f"    num_examples: {count}"
        yield f"  download_size: {size}"
        yield f"  dataset_size: {size}"


_PATHS = {"parquet": "data/{split}-*.parquet", "webdataset": "{split}-*.tar", "png": "{split}/**"}


def _cell(text: object) -> str:
    """Return text fit for a cell of a Markdown table: one line, no bar, no markup."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\|`*_<>[]" else character for character in plain)
