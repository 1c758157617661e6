"""The commands of `mmdgen annotate` about stored annotations: validate, merge, export, import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from mmdgen.annotate import exchange
from mmdgen.annotate.exchange import CSV_FORMAT, FORMATS, JSON_FORMAT, Choice, Fault, Key
from mmdgen.annotate.store import KINDS, WINK_MORPHS, Record
from mmdgen.cli.render import default_annotations
from mmdgen.errors import ConfigError, MmdgenError
from mmdgen.formats.text import one_line, printable
from mmdgen.fsio import sha256_file, write_atomic

_folder = click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
_into = click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of annotations to write into; what it has takes part [annotations/ of the checkout].",
)
_prefer = click.option(
    "--prefer",
    type=click.Choice([exchange.FIRST, exchange.LAST]),
    help="Whose values win where neither is newer: the first or last named; what is there already comes first of all.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done; write nothing.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command()
@_folder
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Compare the morphs' names with the model files below this folder, too.",
)
@_as_json
def validate(folder: Path | None, models: Path | None, as_json: bool) -> None:
    """Check a folder of annotations [annotations/ of the checkout]: exits with 1 and every fault, 0 if there is none.

    Checked are the schema of each file, that its name is its hash, that no two files are for one model, that the
    morphs' numbers and names agree, and that nothing else lies there.

    \b
    Examples:
      mmdgen annotate validate
      mmdgen annotate validate annotations --models models
    """
    folder = folder or _default()
    records, faults = exchange.read_folder(folder)
    compared = 0
    if models is not None:
        more, compared = _compare(records, models)
        faults += more
    if as_json:
        rows = [{"path": fault.path, "message": fault.message} for fault in faults]
        click.echo(json.dumps({"records": len(records), "compared": compared, "faults": rows}, indent=2))
    else:
        for fault in faults:
            click.echo(f"{one_line(fault.path)}: {one_line(fault.message)}")
        counts = ", ".join(f"{sum(kind == k for k, _ in records)} {kind}" for kind in KINDS)
        with_models = f", {compared} compared with their models" if models is not None else ""
        click.echo(f"{folder}: {counts}{with_models}; {len(faults)} fault{'' if len(faults) == 1 else 's'}")
    sys.exit(1 if faults else 0)


def _compare(records: dict[Key, Record], models: Path) -> tuple[list[Fault], int]:
    """Compare with the models that are there; the others' annotations are for other collections."""
    from mmdgen.generate.catalogue import find_models
    from mmdgen.model.load import load_model

    faults: list[Fault] = []
    compared: set[str] = set()
    for relative in find_models(models):
        path = models / relative
        try:
            sha256 = sha256_file(path)
            if (WINK_MORPHS, sha256) not in records or sha256 in compared:
                continue
            names = [printable(morph.name) for morph in load_model(path).morphs]
        except (OSError, MmdgenError) as error:
            faults.append(Fault(relative, f"cannot be read: {error}"))
            continue
        compared.add(sha256)
        faults += exchange.check_names(records, sha256, names)
    return faults, len(compared)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@_into
@_prefer
@_dry_run
@_as_json
def merge(folders: tuple[Path, ...], into: Path | None, prefer: str | None, dry_run: bool, as_json: bool) -> None:
    """Bring several folders of annotations together: people's values beat automatic ones, then newer ones older ones.

    Where that does not decide and the values differ, there is a conflict: both are listed, neither is written (what
    --into has stays as it is), everything else is, and the exit status is 1. --prefer decides those, too. A folder with
    a fault in it is not merged at all.

    \b
    Examples:
      mmdgen annotate merge mine theirs --into annotations
      mmdgen annotate merge theirs --into annotations --prefer last
    """
    target = into or _default()
    sides = [(str(folder), _sound(folder)) for folder in folders]
    _merge_into(target, sides, prefer or "", dry_run, as_json)


@click.command()
@_folder
@click.option("--format", "format_", type=click.Choice(FORMATS), help="[what --out ends in, else json]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write [standard output].")
def export(folder: Path | None, format_: str | None, out: Path | None) -> None:
    """Write all annotations of a folder [annotations/ of the checkout] as one JSON or CSV file.

    Importing the file gives the same files, byte for byte. In the CSV a text that a spreadsheet would take for a
    formula has a ' in front; lists of morphs are JSON in one cell.

    \b
    Examples:
      mmdgen annotate export annotations --format csv --out annotations.csv
      mmdgen annotate export annotations > annotations.json
    """
    records = _sound(folder or _default())
    if format_ is None:
        format_ = CSV_FORMAT if out is not None and out.suffix.lower() == ".csv" else JSON_FORMAT
    if format_ == JSON_FORMAT:
        data = exchange.to_json(records)
    else:
        # The mark at the start is what Excel needs to read UTF-8; it is for files only.
        data = ("\ufeff" if out is not None else "").encode() + exchange.to_csv(records).encode("utf-8")
    if out is None:
        click.echo(data, nl=False)
        return
    write_atomic(out, data)
    click.echo(f"{len(records)} annotations: {out}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--format", "format_", type=click.Choice(FORMATS), help="[what FILE ends in]")
@_into
@_prefer
@_dry_run
@_as_json
def import_(
    file: Path, format_: str | None, into: Path | None, prefer: str | None, dry_run: bool, as_json: bool
) -> None:
    """Take over the annotations of a JSON or CSV file that `export` wrote, edited or not.

    Everything in FILE is checked before anything is written. Where --into has other values, the rules of `merge` hold.

    \b
    Examples:
      mmdgen annotate import annotations.csv --into annotations
      mmdgen annotate import theirs.json --into annotations --prefer last
    """
    format_ = format_ or {".json": JSON_FORMAT, ".csv": CSV_FORMAT}.get(file.suffix.lower())
    if format_ is None:
        raise click.UsageError(f"{file} ends neither in .json nor in .csv: say which with --format")
    target = into or _default()
    try:
        data = file.read_bytes()
        text = "" if format_ == JSON_FORMAT else data.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 (save it as CSV UTF-8): {error}") from error
    records = exchange.from_json(data, file) if format_ == JSON_FORMAT else exchange.from_csv(text, file)
    _merge_into(target, [(str(file), records)], prefer or "", dry_run, as_json)


def _merge_into(
    target: Path, sides: list[tuple[str, dict[Key, Record]]], prefer: str, dry_run: bool, as_json: bool
) -> None:
    if target.exists() and all(Path(name).resolve() != target.resolve() for name, _ in sides):
        sides = [(str(target), _sound(target)), *sides]
    merged = exchange.merge(sides, prefer)
    written = exchange.write_folder(target, merged.records, dry_run=dry_run)
    if as_json:
        value = {
            "into": str(target),
            "records": len(merged.records),
            "written": written,
            "choices": [_choice(choice) for choice in merged.choices],
            "conflicts": len(merged.conflicts),
        }
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for choice in merged.choices:
            _show_choice(choice)
        verb = "would be written" if dry_run else "written"
        click.echo(f"{target}: {len(merged.records)} annotations, {written} {verb}, {len(merged.conflicts)} conflicts")
        if merged.conflicts:
            click.echo("mmdgen: conflicts were left as they are; --prefer first or last decides them", err=True)
    sys.exit(1 if merged.conflicts else 0)


def _show_choice(choice: Choice) -> None:
    kind, sha256 = choice.key
    how = "CONFLICT" if choice.winner < 0 else choice.why
    click.echo(f"{kind}/{sha256[:16]}.json: {one_line(choice.sides[0][1]['name'])}: {how}")
    for place, (name, record) in enumerate(choice.sides):
        mark = "->" if place == choice.winner else "  "
        who = one_line(f"{record['source']} {record['annotator']} {record.get('time', '')}").strip()
        values = {key: value for key, value in exchange.values_of(record).items() if key not in _NOT_SHOWN}
        click.echo(f"  {mark} {one_line(name)} ({who}): {json.dumps(values, ensure_ascii=False, sort_keys=True)}")


_NOT_SHOWN = ("sha256", "schema_version")


def _choice(choice: Choice) -> dict[str, Any]:
    kind, sha256 = choice.key
    return {
        "kind": kind,
        "sha256": sha256,
        "why": choice.why,
        "winner": choice.sides[choice.winner][0] if choice.winner >= 0 else None,
        "sides": [{"from": name, "record": record} for name, record in choice.sides],
    }


def _sound(folder: Path) -> dict[Key, Record]:
    """Return the records of a folder without a fault. Raises `ConfigError` with the first few of them."""
    records, faults = exchange.read_folder(folder)
    if faults:
        first = "; ".join(f"{fault.path}: {fault.message}" for fault in faults[:3])
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ConfigError(
            f"{folder}: {first}{more}. Nothing was written; `mmdgen annotate validate {folder}` lists all of it"
        )
    return records


def _default() -> Path:
    folder = default_annotations()
    if folder is None:
        raise click.UsageError("this is no checkout with a folder annotations/: name the folder")
    return folder


FILE_COMMANDS: dict[str, click.Command] = {"validate": validate, "merge": merge, "export": export, "import": import_}
