"""Hostile input: mutated files of every kind, files that are made to cost, and a fuzzer that sees what is planted."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import fuzz_checks
import numpy as np
import pytest
from fuzz_bombs import costly_jobs, name_of
from fuzz_mutators import Draw, mutate, set_value
from fuzz_planted import BREAKS, PLANTED, SABOTAGE
from fuzz_seed import IMAGE_KINDS, KINDS, MODEL_KINDS, Field
from fuzz_seeds import head_builder, mapped, reader_and_writer, seeds_of
from fuzzing import CPU_LIMIT_S, Report, Settings, make_case, replay, run, run_jobs, table
from hypothesis import given
from hypothesis import strategies as st

from mmdgen.errors import FormatError, MmdgenError, ModelError, one_line
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.formats.text import one_line as in_full
from mmdgen.model.assemble import MAX_TEXTURES
from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import MorphKind, MorphTerm
from mmdgen.model.skeleton import KNOT_LIMIT, BoneRow, build_skeleton
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import Frame, build_rig
from mmdgen.pose.vocabulary import THA1

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of the fuzzer are Linux's")
PER_KIND = 250


def explain(report: Report) -> str:
    return "\n\n".join(f"{f.kind} {f.number}: {f.code} {f.where}\n{f.detail}" for f in report.findings[:5])


# -- the readers -------------------------------------------------------------------------------------------------------


def test_mutated_files_of_every_kind() -> None:
    """The short run: `tools/fuzz.py` makes the long one. Every kind must be accepted and rejected often enough."""
    report = run(PER_KIND * len(KINDS), Settings(), workers=2)
    assert not report.findings, explain(report)
    for kind in KINDS:
        tally = report.tallies[kind]
        assert tally.cases == PER_KIND
        assert PER_KIND // 10 < tally.accepted < PER_KIND * 9 // 10, (kind, tally.outcomes)
    assert str(sum(tally.cases for tally in report.tallies.values())) in table(report)


def test_files_that_are_made_to_cost(thorough: bool) -> None:
    """They take some tenths of a second, and what is quadratic many seconds; the limit is for slow, busy machines.

    Every other one of those that cost most (models with many bones, morphs or names), and the others; --thorough: all.
    """
    jobs = costly_jobs()
    if not thorough:
        models = [job for job in jobs if job[0] == "pmx"]
        jobs = [job for job in jobs if job[0] != "pmx"] + models[::2]
    assert all(50_000 < len(data) < 6_000_000 for _, _, data in jobs)
    report = run_jobs(jobs, Settings(cpu_limit_s=2 * CPU_LIMIT_S, wall_limit_s=60), workers=2)
    assert not report.findings, explain(report) + "".join(f"\n{name_of(finding.number)}" for finding in report.findings)
    for kind in ("pmx", "pmd", "vmd"):
        tally = report.tallies[kind]
        assert tally.accepted == tally.cases


# -- the fuzzer --------------------------------------------------------------------------------------------------------


def test_planted_bugs_are_reported(tmp_path: Path) -> None:
    settings = Settings(target="fuzz_planted:targets", cpu_limit_s=0.4, wall_limit_s=2.0)
    report = run(len(PLANTED), settings, ("pmx",), workers=2, out=tmp_path)
    found = {finding.number: finding.code for finding in report.findings}
    assert found == {number: code for number, (_, code) in enumerate(PLANTED) if code is not None}
    assert report.tallies["pmx"].cases == len(PLANTED)
    assert report.tallies["pmx"].accepted == 1
    # What is saved is the case itself, and shows the same again.
    saved = {path.name: path for path in report.files}
    path = saved["pmx-seed0-case0-exception_IndexError.bin"]
    assert path.read_bytes() == make_case(settings, "pmx", 0)
    assert "IndexError" in path.with_suffix(".txt").read_text()
    again = replay(path, settings)
    assert [finding.code for finding in again.findings] == ["exception IndexError"]
    with pytest.raises(ValueError, match="does not begin with a kind"):
        replay(tmp_path / "what.bin", settings)


@pytest.mark.parametrize("name", SABOTAGE)
def test_readers_that_lost_a_check_are_found_out(name: str) -> None:
    """Some hundred cases show that a repair or a limit of the real readers is gone; mostly the first ones do."""
    kind, code = SABOTAGE[name]
    settings = Settings(target=f"fuzz_planted:{name}", cpu_limit_s=0.3)
    size, most = (25, 50) if code == "hang" else (100, 400)  # a hang costs its limit, and what was done is done again
    for first in range(0, most, size):
        report = run_jobs(
            [(kind, first, first + size // 2), (kind, first + size // 2, first + size)], settings, workers=2
        )
        if code in {finding.code for finding in report.findings}:
            return
    pytest.fail(f"{most} cases did not show it\n{table(report)}")


@pytest.mark.parametrize("number", range(len(BREAKS)), ids=lambda n: f"{n} {BREAKS[n][0]}")
def test_broken_promises_are_seen(number: int) -> None:
    model = model_from_bytes(write_pmx(head_builder().file()), fuzz_checks.NOWHERE)
    assert not list(fuzz_checks.problems(model))
    name, damage = BREAKS[number]
    for array in (model.skeleton.parent, model.face, model.uv, model.position, model.morphs[0].offset):
        array.flags.writeable = True
    damage(model)
    found = list(fuzz_checks.problems(model))
    assert any(problem.startswith(name) for problem in found), found


def test_errors_that_must_not_be_are_seen() -> None:
    hidden = ModelError("x", "y")
    hidden.__cause__ = MemoryError()
    lost = FormatError("x", offset=11)
    cases = (
        (FormatError("x"), ModelError, "wrong_error"),
        (hidden, ModelError, "allocation"),
        (lost, FormatError, "error_offset"),
    )
    for error, kind, code in cases:
        with pytest.raises(fuzz_checks.FindingError) as caught:
            fuzz_checks.check_error(error, kind, 10)
        assert caught.value.code == code
    assert fuzz_checks.check_error(FormatError("x", offset=10), FormatError, 10) == "FormatError"


def test_cases_are_made_by_number_alone() -> None:
    settings = Settings(seed=5)
    seeds_of.cache_clear()
    first = [make_case(settings, kind, 7) for kind in KINDS]
    seeds_of.cache_clear()
    assert [make_case(settings, kind, 7) for kind in reversed(KINDS)][::-1] == first
    assert len({make_case(Settings(seed=seed), "pmd", number) for seed in (5, 6) for number in range(20)}) > 35


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_what_their_kind_says(kind: str) -> None:
    """A seed that is damaged already would test nothing."""
    check = fuzz_checks.targets()[kind]
    usable = 0
    for seed in seeds_of(kind):
        assert 50 < len(seed.data) < 20_000
        outcome = check(seed.data, 0)
        usable += outcome == "accepted"
        assert outcome == "accepted" or (kind == "pmx" and outcome.startswith("ModelError no_")), seed.name
        assert all(0 <= field.offset <= len(seed.data) - field.size for field in seed.fields)
        assert all(0 <= record.start < record.end <= len(seed.data) for record in seed.records)
        assert list(seed.cuts) == sorted(seed.cuts) or kind == "vpd"
        assert len(seed.fields) > 5 or kind in ("vpd", "webp")
    assert usable >= 3


@pytest.mark.parametrize("kind", ["pmx", "pmd", "vmd"])
def test_maps_name_what_the_reader_reads(kind: str) -> None:
    """Nearly every byte that is no text belongs to a field, once; counts are counts."""
    seed = next(seed for seed in seeds_of(kind) if len(seed.records) < 60)
    covered = np.zeros(len(seed.data), int)
    for field in seed.fields:
        covered[field.offset : field.offset + field.size] += 1
    assert covered.max() == 1
    assert covered.mean() > 0.25
    counts = [field for field in seed.fields if field.role == "count"]
    assert len(counts) >= 4
    read, write = reader_and_writer(kind)
    assert write(read(seed.data)) == seed.data


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_mutations_stay_small_and_are_seldom_nothing(number: int, kind: str) -> None:
    seed, data = mutate(Draw(1, kind, number), seeds_of(kind))
    assert len(data) <= 2 * len(seed.data) + (1 << 16)


def test_values_are_set_in_both_byte_orders() -> None:
    for code in ("<I", ">I", "<h", ">H", "<f", "B"):
        data = bytearray(16)
        changed = 0
        for number in range(50):
            before = bytes(data)
            set_value(Draw(0, "x", number), data, Field(4, code if len(code) > 1 else "<" + code), 16)
            size = struct.calcsize(code)
            assert data[:4] == bytes(4)
            assert not any(data[4 + size :])
            changed += data != before
        assert changed > 20


def test_the_allowance_counts_pixels_that_a_file_can_hold() -> None:
    largest = fuzz_checks.BASE_BYTES + 1000 * fuzz_checks.BYTES_PER_BYTE
    for kind in MODEL_KINDS:
        assert fuzz_checks.allowance(kind, bytes(1000)) == largest
    for kind in set(IMAGE_KINDS) - {"webp", "tga", "tiff"}:
        data = bytearray(seeds_of(kind)[0].data)
        honest = fuzz_checks.claimed_size(bytes(data))
        assert honest[0] == kind
        assert 0 < honest[1] < 200
        at = {"png": 16, "bmp": 18, "dds": 12, "gif": 6, "jpeg": data.find(b"\xff\xc0") + 5}[kind]
        data[at : at + 4] = b"\x3f\x3f\x3f\x3f"  # thousands or millions of pixels a side
        claimed = fuzz_checks.claimed_size(bytes(data))[1]
        assert claimed > 10_000
        assert fuzz_checks.allowance(kind, bytes(data)) < fuzz_checks.BASE_BYTES + 250_000 * len(data)


# -- what it found -----------------------------------------------------------------------------------------------------


def greedy(parents: list[int], sources: list[int]) -> list[int]:
    """Appends kept one after the other unless they close a circle, by walking everything each time."""
    kept = [-1] * len(parents)
    for bone, source in enumerate(sources):
        seen, todo = set(), [source]
        while todo:
            other = todo.pop()
            if other >= 0 and other not in seen:
                seen.add(other)
                todo += (parents[other], kept[other])
        if bone not in seen:
            kept[bone] = source
    return kept


@given(st.integers(0, 2**32), st.integers(2, 12))
def test_appends_in_circles_are_cut_as_one_by_one(seed: int, count: int) -> None:
    random = fuzz_checks.rng.generator(seed, "tests", "appends")
    parents = [int(random.integers(-1, i)) if i else -1 for i in range(count)]
    sources = random.integers(-1, count, count).tolist()
    rows = [
        BoneRow(f"b{i}", "", (0, 0, 0), parents[i], append_source=sources[i], append_ratio=1.0, append_rotation=True)
        for i in range(count)
    ]
    skeleton = build_skeleton(rows, Diagnostics())
    assert skeleton.append_source.tolist() == greedy(parents, sources)
    assert not list(fuzz_checks.skeleton_problems(skeleton))


def test_a_knot_too_large_to_untie_loses_its_appends() -> None:
    count = KNOT_LIMIT + 10
    rows = [
        BoneRow(f"b{i}", "", (0, 0, 0), i - 1, append_source=count - 1, append_ratio=1.0, append_rotation=True)
        for i in range(count)
    ]
    rows.append(BoneRow("free", "", (0, 0, 0), -1, append_source=3, append_ratio=1.0, append_rotation=True))
    diagnostics = Diagnostics()
    skeleton = build_skeleton(rows, diagnostics)
    assert skeleton.append_source.tolist() == [-1] * count + [3]
    assert {item.code for item in diagnostics.as_tuple()} == {"append_cycle"}
    assert len(diagnostics.as_tuple()) == count


def test_bones_without_places_take_the_nearest_ones() -> None:
    nan = (float("nan"),) * 3
    places = [(1, 2, 3), nan, nan, (4, 5, 6), nan, nan, nan]
    parents = [-1, 2, 0, 1, 3, -1, 5]
    rows = [BoneRow(f"b{i}", "", place, parent) for i, (place, parent) in enumerate(zip(places, parents, strict=True))]
    rest = build_skeleton(rows, Diagnostics()).rest
    assert rest.tolist() == [[1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6], [0, 0, 0], [0, 0, 0]]


def test_no_more_files_are_looked_for_than_models_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    toy = head_builder()
    toy.textures += ["a.png"] * 1200
    textures = model_from_bytes(write_pmx(toy.file()), tmp_path / "model.pmx").textures
    found = [texture.path is not None for texture in textures]
    assert found == [False] * 2 + [True] * (MAX_TEXTURES - 2) + [False] * (1202 - MAX_TEXTURES)


def test_chains_of_appends_are_bounded_without_recursion() -> None:
    toy = head_builder()
    for _ in range(5000):
        last = len(toy.bones)
        toy.bones.append(pmx.PmxBone(f"b{last}", flags=0x100, append_index=last - 1, append_ratio=1e6))
    model = toy.model()
    terms: dict[str, tuple[MorphTerm, ...]] = dict.fromkeys(("left_eye", "right_eye", "mouth"), ())
    binding = PoseBinding(THA1, len(toy.bones) - 1, 0, terms)
    rig = build_rig(model, binding, Frame(-2, 2, 16, 20, 0.1))
    assert rig.groups.count == 3
    assert len(rig.draws) == 3


def test_groups_name_every_morph_once() -> None:
    """Else a group of n entries, each a morph of n bones, would be n * n rows when it is flattened."""
    toy = head_builder()
    rows = np.array([(3, 0.25), (0, 1.0), (3, 0.5), (0, -0.5)], pmx.OFFSET_DTYPES[pmx.MORPH_GROUP])
    toy.morphs.append(pmx.PmxMorph("again", "", 4, pmx.MORPH_GROUP, rows))
    morph = toy.model().morphs[-1]
    assert morph.kind is MorphKind.GROUP
    assert (morph.index.tolist(), morph.offset.tolist()) == ([3, 0], [0.75, 0.5])
    assert (morph.index.dtype, morph.offset.dtype) == (np.int32, np.float32)


def test_messages_are_one_line_that_can_be_shown() -> None:
    wild = "a\x1b[2J\r\nb\u2028c\udc80" + "x" * 10_000
    for error in (FormatError(wild, file=wild), ModelError("code", wild)):
        assert isinstance(error, MmdgenError)
        text = str(error)
        text.encode("utf-8")
        assert len(text) <= 2000
        assert text.isprintable()
    assert one_line("頭 é ok") == "頭 é ok"
    assert one_line("a\x1b\r\nb\u2028c\udc80\udc81") == "a b c\\udc80\\udc81"
    for text in ("x" * 2001, "\udc80" * 1999, "\x00" * 5000):
        assert len(one_line(text)) <= 2000
        assert one_line(one_line(text)) == one_line(text)
    assert one_line("\udc80" * 3000, None) == in_full("\udc80" * 3000) == "\\udc80" * 3000
    found = Diagnostics()
    found.add("name_damaged", "bones", 0, wild)
    assert len(found.as_tuple()[0].message) <= 300
    assert found.as_tuple()[0].message.isprintable()


def test_a_file_that_its_reader_rejects_is_a_seed_as_far_as_it_was_read() -> None:
    whole = seeds_of("pmd")[0].data
    seed = mapped("pmd", "half", whole[: len(whole) // 4])
    assert seed.fields
    assert seed.data == whole[: len(whole) // 4]
