"""Freezing the plan: once for a folder, also when all tasks of a job array start in the same second.

The first process that links plan.json into place wins; the others take its plan, after making sure that theirs is the
same. provenance.jsonl belongs to a plan and is written before it, so it is kept under the plan's digest in .work first:
whoever comes later puts the right one into place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmdgen.dataset.schema import PLAN_FILE, PROVENANCE_FILE
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import TEMPORARY_MARK, create_once, write_atomic
from mmdgen.generate.catalogue import Catalogue
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.plan import Plan, check_same, make_plan, plan_bytes, read_plan
from mmdgen.generate.provenance import jsonl_bytes
from mmdgen.generate.shard import WORK_FOLDER


def plan_for(out: Path, options: RenderOptions, scan: Callable[[], Catalogue], *, keep: bool = True) -> Plan:
    """Return the plan frozen in `out` when its options are `options`, else make one (`scan` is called only then).

    With `keep` a new plan is frozen: `out` is made, provenance.jsonl and plan.json are written. Raises `ConfigError`
    when `out` holds something else or was begun with other options, also by another process at this moment.
    """
    plan = read_plan(out)
    if plan is None:
        check_folder(out)
        plan, provenance = plan_of(options, scan())
        if keep:
            plan = freeze(plan, provenance, out)
    else:
        check_same(plan, options, out)
        if keep:
            place_provenance(plan, out)
    return plan


def plan_of(options: RenderOptions, catalogue: Catalogue) -> tuple[Plan, bytes]:
    """Return the plan and the content of provenance.jsonl. Raises `ConfigError`."""
    plan = make_plan(options, catalogue)
    provenance = {model.id: model.provenance for model in catalogue.models}
    return plan, jsonl_bytes([provenance[model.id] for model in plan.models])


def freeze(plan: Plan, provenance: bytes, out: Path) -> Plan:
    """Freeze a plan in `out`, or take the one that another process has just frozen there, which must be the same.

    Returns what a later start will read. Raises `ConfigError` for another plan, `DatasetError` when nothing can be
    written.
    """
    write_plan_once(plan, plan_bytes(plan), provenance, out)
    frozen = read_plan(out)
    if frozen is None:
        raise DatasetError(f"{out / PLAN_FILE} has vanished just after it was written; run the same command again")
    check_frozen(plan, frozen, str(out))
    place_provenance(frozen, out)
    return frozen


def write_plan_once(plan: Plan, content: bytes, provenance: bytes, out: Path) -> None:
    """Write `content` as plan.json unless there is one, after the provenance of this plan. Raises `DatasetError`."""
    kept = kept_provenance(plan, out)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be made: {error.strerror or error}") from error
    write_atomic(kept, provenance)
    create_once(out / PLAN_FILE, content)


def check_frozen(plan: Plan, frozen: Plan, name: str) -> None:
    """Raise `ConfigError` when the plan `frozen` in `name` by another process is not `plan`."""
    if frozen.digest == plan.digest:
        return
    check_same(frozen, plan.options, Path(name))
    raise ConfigError(
        f"{name}: another process has just frozen a plan with {len(frozen.models)} models ({len(frozen.rejected)} "
        f"rejected), and this one found {len(plan.models)} ({len(plan.rejected)} rejected): they do not see the same "
        "models or annotations. The same command, given again, goes on with the frozen plan"
    )


def kept_provenance(plan: Plan, out: Path) -> Path:
    """Return where the provenance of a plan is kept until the dataset is finished."""
    return out / WORK_FOLDER / f"provenance-{plan.digest[:16]}.jsonl"


def place_provenance(plan: Plan, out: Path) -> None:
    """Bring the provenance of the frozen plan into place, where another process's, or none, is there."""
    try:
        content = kept_provenance(plan, out).read_bytes()
    except OSError:  # a finished dataset, or one begun by an older version, which has it in place
        return
    path = out / PROVENANCE_FILE
    try:
        same = path.read_bytes() == content
    except OSError:
        same = False
    if not same:
        write_atomic(path, content)


def check_folder(out: Path) -> None:
    """Raise `ConfigError` when `out` is a file or holds what no run of ours has left there."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; --out names the folder of the dataset")
    ours = (WORK_FOLDER, PROVENANCE_FILE)  # left when a run ended before its plan was frozen
    # the plan, too: another process may have frozen it since it was looked for
    foreign = sorted(p.name for p in out.iterdir() if p.name not in ours and TEMPORARY_MARK not in p.name)
    if foreign and PLAN_FILE not in foreign:
        more = ", ..." if len(foreign) > 3 else ""
        raise ConfigError(
            f"{out} is not empty and holds no {PLAN_FILE} of a run to go on with ({', '.join(foreign[:3])}{more}); "
            "give another --out"
        )
