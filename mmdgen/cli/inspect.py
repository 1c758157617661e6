"""mmdgen inspect: what a model, a shard or a dataset contains."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from mmdgen.annotate.records import EYE_SLOTS, Annotation
from mmdgen.annotate.store import resolve
from mmdgen.cli.render import default_annotations
from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.reader import Shard
from mmdgen.dataset.schema import MANIFEST_FILE, SPLITS
from mmdgen.errors import AnnotationError, ConfigError
from mmdgen.formats.text import one_line
from mmdgen.generate.provenance import json_line
from mmdgen.model.load import load_model
from mmdgen.model.records import Model, MorphTerm

SHARD_SUFFIXES = (".h5", ".hdf5")


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of stored annotations [annotations/ of the checkout, if there is one].",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(path: Path, annotations: Path | None, as_json: bool) -> None:
    """Show what PATH contains: a model (.pmx, .pmd), a shard (.h5) or a dataset's folder.

    For a model: its size, the bones and morphs that posing uses, the head bounds, how sure that is, or why the model is
    refused, its textures and what was repaired.

    \b
    Examples:
      mmdgen inspect models/miku/miku.pmx
      mmdgen inspect out/d/train/shard-00000.h5
      mmdgen inspect out/d --json
    """
    if path.is_dir():
        if not (path / MANIFEST_FILE).exists():
            raise ConfigError(
                f"{path} is no finished dataset (it has no {MANIFEST_FILE}); for a folder of models: mmdgen scan"
            )
        value = describe_dataset(path)
    elif path.suffix.lower() in SHARD_SUFFIXES:
        value = describe_shard(path)
    else:
        value = describe_model(load_model(path), annotations or default_annotations())
    if as_json:
        click.echo(json.dumps(json.loads(json_line(value)), indent=2, ensure_ascii=True))
    else:
        _show(value)


def describe_model(model: Model, annotations: Path | None) -> dict[str, Any]:
    """Return everything about a model that people ask about, as a JSON object."""
    used: set[int] = set()
    for material in model.materials:
        used |= {material.texture, material.sphere_texture, material.toon_texture}
    textures = [
        {"name": texture.name, "found": texture.path is not None, "used": number in used}
        for number, texture in enumerate(model.textures)
    ]
    value: dict[str, Any] = {
        "kind": "model",
        "name": model.name,
        "name_en": model.name_en,
        "sha256": model.id,
        "counts": {
            "vertices": len(model.position),
            "faces": len(model.face),
            "materials": len(model.materials),
            "bones": len(model.skeleton.name),
            "morphs": len(model.morphs),
            "sdef vertices": len(model.sdef.vertex),
        },
        "morph kinds": dict(sorted(Counter(morph.kind.value for morph in model.morphs).items())),
        "textures": textures,
        "diagnostics": [
            {"code": d.code, "section": d.section, "index": d.index, "message": d.message} for d in model.diagnostics
        ],
        "comment": model.comment,
    }
    try:
        value["annotation"] = _describe_annotation(model, resolve(model, annotations))
    except AnnotationError as error:
        value["refused"] = {"code": error.code, "message": str(error)}
    return value


def _describe_annotation(model: Model, annotation: Annotation) -> dict[str, Any]:
    def terms(found: tuple[MorphTerm, ...]) -> list[dict[str, Any]]:
        return [
            {"morph": term.morph, "name": model.morphs[term.morph].name, "weight": term.weight, "side": term.side}
            for term in found
        ]

    bounds, eyes = annotation.bounds, annotation.eyes
    slots = {name: terms(eyes.slots[name]) for name in EYE_SLOTS}
    slots["mouth_open"] = terms(eyes.mouth_open)
    used = annotation.parameter_terms()
    return {
        "bones": {
            role: {"index": number, "name": model.skeleton.name[number]}
            for role, number in (("neck", annotation.neck), ("head", annotation.head))
        },
        "head bounds": {
            "chin_y": bounds.chin_y,
            "top_y": bounds.top_y,
            "center_x": bounds.center_x,
            "source": bounds.source,
            "confidence": bounds.confidence,
            "reason": bounds.reason,
        },
        "morphs": {
            "slots": slots,
            "missing": [name for name, found in slots.items() if not found],
            "used": {name: terms(found) for name, found in used.items()},
            "source": eyes.source,
            "confidence": eyes.confidence,
            "reasons": list(eyes.reasons),
        },
        "notes": list(annotation.notes),
    }


def describe_shard(path: Path) -> dict[str, Any]:
    """Return what a shard holds, as a JSON object."""
    with Shard(path) as shard:
        header, names = shard.header, shard.header.config.vocabulary.names
        counts = shard.model_samples()
        pose = {
            name: {
                "min": round(float(shard.pose[:, column].min()), 4),
                "mean": round(float(shard.pose[:, column].mean()), 4),
                "max": round(float(shard.pose[:, column].max()), 4),
            }
            for column, name in enumerate(names)
            if len(shard)
        }
        return {
            "kind": "shard",
            "split": header.split,
            "number": header.number,
            "samples": len(shard),
            "bytes": path.stat().st_size,
            "image_size": header.config.image_size,
            "expression_encoding": header.config.expression_encoding,
            "posed_encoding": header.config.posed_encoding,
            "codec": header.config.codec,
            "flow": header.config.flow,
            "plan": header.plan,
            "pose": pose,
            "models": [
                {
                    "sha256": entry.sha256,
                    "name": entry.name,
                    "source": entry.source,
                    "samples": counts[entry.sha256],
                    "head_bounds": [entry.chin_y, entry.top_y, entry.center_x],
                    "ambient": entry.ambient,
                    "hints": entry.terms,
                }
                for entry in shard.models
            ],
        }


def describe_dataset(path: Path) -> dict[str, Any]:
    """Return what a dataset's manifest says in short, as a JSON object."""
    manifest = read_manifest(path)
    return {
        "kind": "dataset",
        "code_version": manifest.code_version,
        "image_size": manifest.config.image_size,
        "expression_encoding": manifest.config.expression_encoding,
        "posed_encoding": manifest.config.posed_encoding,
        "codec": manifest.config.codec,
        "flow": manifest.config.flow,
        "settings": dict(manifest.config.settings),
        "bytes": manifest.bytes,
        "splits": {
            split: {
                "samples": manifest.samples(split),
                "models": manifest.model_count(split),
                "shards": len(manifest.shards[split]),
            }
            for split in SPLITS
            if manifest.shards.get(split)
        },
        "rejected": dict(sorted(Counter(str(row.get("code")) for row in manifest.rejected).items())),
        "failures": dict(sorted(Counter(str(row.get("code")) for row in manifest.failures).items())),
        "gl": dict(manifest.gl),
    }


def _show(value: Any, depth: int = 0) -> None:
    """Print nested objects as indented lines: short lists of objects as one line each, empty things not at all."""
    indent = "  " * depth
    for key, item in value.items():
        if isinstance(item, dict):
            if item and all(not isinstance(inner, dict | list) for inner in item.values()):
                click.echo(f"{indent}{key}: {_inline(item)}")
            elif item:
                click.echo(f"{indent}{key}:")
                _show(item, depth + 1)
        elif isinstance(item, list):
            if item and all(not isinstance(inner, dict | list) for inner in item):
                click.echo(f"{indent}{key}: {', '.join(_text(inner) for inner in item)}")
            elif item:
                click.echo(f"{indent}{key}:")
                for inner in item:
                    click.echo(f"{indent}  - {_inline(inner)}")
        elif item not in ("", None):
            click.echo(f"{indent}{key}: {_text(item)}")


def _inline(item: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_text(inner)}" for key, inner in item.items() if inner not in ("", [], {}))


def _text(item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list):
        return "[" + ", ".join(_text(inner) for inner in item) + "]"
    if isinstance(item, list):
        return "[" + ", ".join(_text(inner) for inner in item) + "]"
    if isinstance(item, float):
        return f"{item:.4g}"
    return one_line(str(item))
