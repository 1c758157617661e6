"""The scores of an evaluation as a table for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from mmdgen.train import baselines
from mmdgen.train.evaluate import BASELINES, IDENTITY, NEAREST, Evaluation, Result, measured
from mmdgen.train.metrics import ALL, CHANGED, DEFINITIONS, HEAD, LINEAR, LPIPS, SRGB, summarise

SCHEMA, SCHEMA_VERSION = "mmdgen-evaluation", 1
WORST = 10
WIDTH = 100
TITLES = {
    "expression": "expression: rest picture -> expression picture (the morpher's task)",
    "rotation": "rotation: true expression picture -> posed picture (rotator, and combiner on its pictures)",
    "whole": "whole: rest picture -> posed picture (morpher, rotator and combiner in a chain)",
}
BASELINE_MEANINGS = {
    IDENTITY: "the given picture, unchanged",
    NEAREST: "the wanted kind of picture of the same character's other sample in the same split whose pose is nearest "
    "(Euclidean, with the weights below); samples whose character has no other are left out of this row: an oracle, "
    "because it has true pictures of the character, which a person with one drawing does not",
}

# (space, mask, measure, heading, digits)
_COLUMNS = (
    (LINEAR, ALL, "rmse", "RMSE", 4),
    (LINEAR, ALL, "mse", "MSE", 5),
    (LINEAR, ALL, "root_mse", "rootMSE", 4),
    (LINEAR, ALL, "ssim", "SSIM", 4),
    (LINEAR, HEAD, "rmse", "head", 4),
    (LINEAR, CHANGED, "rmse", "changed", 4),
    (SRGB, ALL, "rmse", "RMSE", 4),
    (SRGB, ALL, "ssim", "SSIM", 4),
    (SRGB, CHANGED, "rmse", "changed", 4),
)
_NAME, _CELL = 18, 8
_FOOT = (
    "linear: R, G, B in linear light and alpha, in [0, 1] (in the networks' [-1, 1]: RMSE x 2, MSE x 4)",
    "seen: sRGB over white, in [0, 1]",
    "RMSE: mean over each picture's own; rootMSE: root of the mean MSE",
    "head: RMSE in the middle half of rows and columns; changed: where given and wanted picture differ",
    "identity: the given picture; nearest pose: the true picture of the character's nearest other pose",
    "x identity: the errors as multiples of the identity's",
)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything about an evaluation as a JSON object; docs/evaluation.md lists the keys."""
    split = evaluation.split
    models = split.model[evaluation.samples]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "split": evaluation.split_name,
        "image_size": evaluation.image_size,
        "samples": len(evaluation.samples),
        "samples_in_split": len(split),
        "characters": len(np.unique(models)),
        "left_out": dict(evaluation.left_out),
        "warnings": list(evaluation.warnings),
        "lpips": evaluation.lpips_note or "measured",
        "definitions": DEFINITIONS,
        "baselines": BASELINE_MEANINGS,
        "tasks": {result.task.name: _task_json(evaluation, result) for result in evaluation.results},
        "models": [_model_json(evaluation, models, int(model)) for model in np.unique(models)],
    }


def _task_json(evaluation: Evaluation, result: Result) -> dict[str, Any]:
    return {
        "given": result.task.given,
        "wanted": result.task.wanted,
        "pose_weights": dict(result.task.weights),
        "changed": result.changed,
        "without_neighbour": int((result.neighbour == baselines.NONE).sum()),
        "scores": {name: summarise(scores) for name, scores in result.scores.items()},
        "worst": {name: _worst_json(evaluation, result, name) for name in result.methods},
    }


def _worst_json(evaluation: Evaluation, result: Result, method: str) -> list[dict[str, Any]]:
    rows = []
    split = evaluation.split
    for place in evaluation.worst(result, method, WORST):
        sample = int(evaluation.samples[place])
        entry = split.models[int(split.model[sample])]
        pose = {name: round(float(value), 6) for name, value in zip(split.names, split.pose[sample], strict=True)}
        numbers = {key: float(value[place]) for key, value in measured(result.scores[method]).items()}
        identity = float(result.scores[IDENTITY][LINEAR, ALL, "rmse"][place])
        rows.append(
            {"sample": sample, "sha256": entry.sha256, "name": entry.name, "pose": pose}
            | numbers
            | {"identity_rmse": identity}
        )
    return rows


def _model_json(evaluation: Evaluation, models: np.ndarray, model: int) -> dict[str, Any]:
    entry, own = evaluation.split.models[model], models == model

    def means(result: Result, name: str) -> dict[str, float | None]:
        values = {key: value[own] for key, value in measured(result.scores[name]).items()}
        values["changed_rmse"] = measured(result.scores[name], CHANGED)["rmse"][own]
        known = {key: value[~np.isnan(value)] for key, value in values.items()}
        return {key: float(value.mean()) if len(value) else None for key, value in known.items()}

    return {
        "sha256": entry.sha256,
        "name": entry.name,
        "source": entry.source,
        "samples": int(own.sum()),
        "scores": {
            result.task.name: {name: means(result, name) for name in result.scores} for result in evaluation.results
        },
    }


def table(evaluation: Evaluation) -> str:
    """Return the scores as text, at most 100 columns wide, with what its numbers mean below."""
    split = evaluation.split
    characters = len(np.unique(split.model[evaluation.samples]))
    lines = [
        f"split {evaluation.split_name}: {len(evaluation.samples):,} of {len(split):,} samples, "
        f"{characters:,} characters, {evaluation.image_size} x {evaluation.image_size} pixels"
    ]
    for result in evaluation.results:
        lines += ["", *_task_lines(evaluation, result)]
    lines.append("")
    notes = [f"careful: {warning}" for warning in evaluation.warnings]
    notes += [f"left out: {name}: {reason}" for name, reason in evaluation.left_out.items()]
    notes += [f"no LPIPS: {evaluation.lpips_note}"] if evaluation.lpips_note else []
    lines += [line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    return "\n".join([*lines, *_FOOT])


def _task_lines(evaluation: Evaluation, result: Result) -> list[str]:
    with_lpips = not evaluation.lpips_note
    headings = [heading for *_, heading, _ in _COLUMNS] + (["LPIPS"] if with_lpips else [])
    linear = sum(space == LINEAR for space, *_ in _COLUMNS) * _CELL
    groups = ((" linear ", linear), (" seen ", len(headings) * _CELL - linear))
    lines = [
        TITLES[result.task.name],
        " " * _NAME + "".join(" " + text.center(width - 1, "-") for text, width in groups),
        " " * _NAME + "".join(heading.rjust(_CELL) for heading in headings),
    ]
    summaries: dict[str, Any] = {name: summarise(scores) for name, scores in result.scores.items()}
    for name, summary in summaries.items():
        cells = [_cell(summary[space][mask][measure], digits) for space, mask, measure, _, digits in _COLUMNS]
        lines.append("  " + name.ljust(_NAME - 2) + "".join(cells + ([_cell(summary[LPIPS], 4)] if with_lpips else [])))
        if name in BASELINES:
            continue
        cells = []
        for space, mask, measure, _, _ in _COLUMNS:
            own, base = summary[space][mask][measure], summaries[IDENTITY][space][mask][measure]
            cells.append(" " * _CELL if measure == "ssim" else _ratio(own, base))
        if with_lpips:
            cells.append(_ratio(summary[LPIPS], summaries[IDENTITY][LPIPS]))
        lines.append("  " + "  x identity".ljust(_NAME - 2) + "".join(cells).rstrip())
    alone = int((result.neighbour == baselines.NONE).sum())
    if alone:
        lines.append(f"  nearest pose: without {alone:,} samples that are the only one of their character")
    same = len(evaluation.samples) - result.changed
    if same:
        lines.append(f"  changed: without {same:,} samples whose wanted picture is the given one")
    return lines


def _cell(value: float | None, digits: int) -> str:
    return ("-" if value is None else f"{value:.{digits}f}").rjust(_CELL)


def _ratio(own: float | None, base: float | None) -> str:
    return ("-" if own is None or not base else f"{own / base:.2f}").rjust(_CELL)
