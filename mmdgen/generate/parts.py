"""One part of a dataset: which shards task i of n of a job array renders, and how a batch system says i and n.

Part i of n renders the shards i-1, i-1+n, i-1+2n, ... of the plan (counted from 0), so that every part gets shards of
all splits and no two parts share one. Parts need not know of each other.

What batch systems put into the environment of a task of an array:

* Slurm (sbatch(1), "output environment variables"; slurm.schedmd.com/job_array.html): SLURM_ARRAY_TASK_ID,
  SLURM_ARRAY_TASK_MIN, _MAX, _COUNT and _STEP.
* Grid Engine (qsub(1) of Sun, Son of and Univa Grid Engine): SGE_TASK_ID ("undefined" in a job that is no array),
  SGE_TASK_FIRST, SGE_TASK_LAST and SGE_TASK_STEPSIZE.
* PBS Professional and OpenPBS (User's Guide, "Job Arrays"): PBS_ARRAY_INDEX, and no count. Torque (Administrator's
  Guide, "Submitting and managing jobs"): PBS_ARRAYID, and no count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmdgen.errors import ConfigError

MOST_PARTS = 1_000_000
UNDEFINED = "undefined"

SLURM = "SLURM_ARRAY_TASK_"
_WHOLE = re.compile(r"[0-9]{1,9}")
_AUTO = re.compile(r"auto(?:/([0-9]{1,9}))?")
_PART = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_LOCK = re.compile(r"part-([0-9]+)-of-([0-9]+)\.lock")


@dataclass(frozen=True, slots=True, order=True)
class PartOf:
    """Part `number` (from 1) of `count`. Raises `ConfigError`."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MOST_PARTS:
            raise ConfigError(f"a part is i/n with 1 <= i <= n <= {MOST_PARTS}, found {self.number}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def indices(self, shards: int) -> range:
        """Return the indices into the plan's `shards` shards that this part renders."""
        return range(self.number - 1, shards, self.count)

    @property
    def lock_name(self) -> str:
        """The name of the file that says that this part was begun, and is locked while it runs."""
        return f"part-{self.number:04d}-of-{self.count:04d}.lock"

    @classmethod
    def of_lock(cls, name: str) -> PartOf | None:
        """Return the part that a file's name stands for, or None."""
        found = _LOCK.fullmatch(name)
        try:
            return cls(int(found[1]), int(found[2])) if found else None
        except ConfigError:
            return None


def parse_part(text: str, environment: Mapping[str, str]) -> PartOf:
    """Return the part that `text` names: ``i/n``, ``auto`` or ``auto/n``. Raises `ConfigError`.

    ``auto`` takes both numbers from the batch system, ``auto/n`` only the task's number.
    """
    text = text.strip()
    part = _PART.fullmatch(text)
    if part:
        return PartOf(int(part[1]), int(part[2]))
    auto = _AUTO.fullmatch(text)
    if not auto:
        raise ConfigError(f"{text!r} is not a part: give i/n (such as 3/16), auto, or auto/n")
    return from_environment(environment, int(auto[1]) if auto[1] else None)


def from_environment(environment: Mapping[str, str], count: int | None = None) -> PartOf:
    """Return the part that the batch system's variables name; see the module for which they are.

    Without `count` the tasks of the array, from its first to its last, are the parts 1 to n. With `count` the task's
    number is the part's: 1 to n, or 0 to n-1 with 0 as the last part, so that tasks submitted again by their numbers
    are the same parts. Raises `ConfigError` when no system, or more than one, has set its variables, or only some.
    """
    found = [
        (name, read)
        for name, variables, read in _SYSTEMS
        if any(environment.get(variable, UNDEFINED) not in ("", UNDEFINED) for variable in variables)
    ]
    if not found:
        names = ", ".join(f"{variables[0]} ({name})" for name, variables, _ in _SYSTEMS)
        raise ConfigError(f"--part auto: this is no task of a job array: none of {names} is set; give --part i/n")
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise ConfigError(f"--part auto: the variables of {names} are all set; give --part i/n")
    return found[0][1](environment, count)


def _slurm(environment: Mapping[str, str], count: int | None) -> PartOf:
    number = _number(environment, SLURM + "ID")
    if count is not None:
        return _counted(SLURM + "ID", number, count)
    first, last, step, tasks = (_number(environment, SLURM + name) for name in ("MIN", "MAX", "STEP", "COUNT"))
    even = step > 0 and first + step * (tasks - 1) == last
    if not even:
        raise ConfigError(
            f"--part auto: the array's tasks ({first} to {last}, {tasks} of them, step {step}) are not evenly spaced: "
            "which part this is cannot be told; give --part auto/n, or an array such as 1-16 or 0-30:2"
        )
    return _on_grid(SLURM + "ID", number, first, last, step)


def _sge(environment: Mapping[str, str], count: int | None) -> PartOf:
    number = _number(environment, "SGE_TASK_ID")
    if count is not None:
        return _counted("SGE_TASK_ID", number, count)
    first, last, step = (_number(environment, f"SGE_TASK_{name}") for name in ("FIRST", "LAST", "STEPSIZE"))
    return _on_grid("SGE_TASK_ID", number, first, last, step)


def _pbs(variable: str, environment: Mapping[str, str], count: int | None) -> PartOf:
    number = _number(environment, variable)
    if count is None:
        raise ConfigError(
            f"--part auto: {variable} is {number}, and PBS does not say how many tasks there are; give --part auto/n"
        )
    return _counted(variable, number, count)


def _counted(variable: str, number: int, count: int) -> PartOf:
    if not 0 <= number <= count or count < 1:
        raise ConfigError(
            f"--part auto/{count}: {variable} is {number}; the array's tasks must be 1 to {count} or 0 to {count - 1}"
        )
    return PartOf(number or count, count)


def _on_grid(variable: str, number: int, first: int, last: int, step: int) -> PartOf:
    if step < 1 or not first <= number <= last or (number - first) % step:
        raise ConfigError(f"--part auto: {variable} is {number}, and the array goes from {first} to {last} by {step}")
    return PartOf((number - first) // step + 1, (last - first) // step + 1)


def _number(environment: Mapping[str, str], variable: str) -> int:
    text = environment.get(variable, "").strip()
    if not _WHOLE.fullmatch(text):
        found = f"is {text!r}, not a whole number" if text else "is not set, though others of its kind are"
        raise ConfigError(f"--part auto: {variable} {found}; give --part i/n")
    return int(text)


_SYSTEMS = (
    ("Slurm", tuple(SLURM + name for name in ("ID", "MIN", "MAX", "COUNT", "STEP")), _slurm),
    ("PBS", ("PBS_ARRAY_INDEX",), lambda environment, count: _pbs("PBS_ARRAY_INDEX", environment, count)),
    ("Torque", ("PBS_ARRAYID",), lambda environment, count: _pbs("PBS_ARRAYID", environment, count)),
    ("Grid Engine", tuple(f"SGE_TASK_{name}" for name in ("ID", "FIRST", "LAST", "STEPSIZE")), _sge),
)


def parts_to_repeat(missing: Iterable[int], begun: Iterable[PartOf]) -> list[PartOf]:
    """Return the parts whose shards (indices into the plan) are `missing`, if all `begun` agree on how many."""
    counts = {part.count for part in begun}
    if len(counts) != 1:
        return []
    count = counts.pop()
    return sorted({PartOf(index % count + 1, count) for index in missing})
