"""The plan is a pure, even, complete and quick distribution of samples, and survives its file."""

from __future__ import annotations

import dataclasses
import random
import time
from collections import Counter

import pytest
from fake_backend import options
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen import __version__
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate.catalogue import Catalogue, Rejection, UsableModel
from mmdgen.generate.options import RenderOptions, command_line
from mmdgen.generate.plan import Plan, check_same, make_plan, plan_bytes, read_plan, write_plan
from mmdgen.generate.splits import SplitRules
from mmdgen.model.records import MorphTerm


def model(number: int, folder: str = "") -> UsableModel:
    path = f"{folder or f'source{number % 23}'}/m{number}/モデル.pmx"
    return UsableModel(
        id=f"{number:064x}",
        path=path,
        source=path.split("/")[0],
        name=f"名前 {number}",
        status="repaired",
        vertices=12345,
        confidence=0.83,
        neck=7,
        head=8,
        chin_y=15.1 + number / 3,
        top_y=18.7 + number / 3,
        center_x=-0.01,
        terms={
            "left_eye": (MorphTerm(3, 1.0, "left"),),
            "right_eye": (MorphTerm(3, 1.0, "right"), MorphTerm(4, 0.5)),
            "mouth": (MorphTerm(1),),
        },
        textures="00" * 16,
        diagnostics={"normal_length": 2},
        notes=("a note",),
        hints=("no_ai",),
        provenance={"sha256": f"{number:064x}"},
    )


def catalogue(count: int, rejected: tuple[Rejection, ...] = ()) -> Catalogue:
    return Catalogue(tuple(sorted((model(number) for number in range(count)), key=lambda m: m.path)), rejected)


def samples_of(plan: Plan, split: str) -> dict[int, list[int]]:
    """Every sample of every model of a split, as the shards hold them."""
    found: dict[int, list[int]] = {}
    for shard in plan.shards:
        if shard.split == split:
            for part in shard.parts:
                found.setdefault(part.model, []).extend(range(part.first, part.first + part.count))
    return found


@given(
    models=st.integers(3, 60),
    train=st.integers(1, 3000),
    validation=st.integers(0, 300),
    shard_size=st.one_of(st.just(0), st.integers(1, 400)),
)
@settings(max_examples=80, deadline=None)
def test_every_sample_is_planned_once_and_evenly(models, train, validation, shard_size):
    plan = make_plan(
        options(poses={"train": train, "validation": validation}, shard_size=shard_size), catalogue(models)
    )
    size = plan.options.samples_per_shard()
    seen: set[int] = set()
    for split, poses in (("train", train), ("validation", validation)):
        found = samples_of(plan, split)
        assert sum(len(samples) for samples in found.values()) == poses
        assert all(sorted(samples) == list(range(len(samples))) for samples in found.values())
        if poses:
            counts = [len(samples) for samples in found.values()]
            assert max(counts) - min(counts) <= 1
        shards = [shard for shard in plan.shards if shard.split == split]
        assert [shard.number for shard in shards] == list(range(len(shards)))
        assert all(0 < shard.samples <= 1.5 * size + 1 for shard in shards)
        for shard in shards:
            members = [part.model for part in shard.parts]
            assert len(set(members)) == len(members)
        assert not seen & set(found)
        seen |= set(found)
    assert seen == set(range(len(plan.models)))


def test_whole_models_share_a_shard_where_they_fit():
    plan = make_plan(options(poses={"train": 40 * 25}, shard_size=0), catalogue(40))
    assert plan.options.samples_per_shard() == 128
    assert len(plan.shards) == 8
    assert all(part.first == 0 and part.count == 25 for shard in plan.shards for part in shard.parts)
    assert all(shard.samples == 125 for shard in plan.shards)


def test_a_model_with_many_samples_is_cut_into_equal_parts():
    plan = make_plan(options(poses={"train": 2000}, shard_size=300), catalogue(2))
    assert [shard.samples for shard in plan.shards] == [333, 333, 334] * 2
    assert all(len(shard.parts) == 1 for shard in plan.shards)


def test_shards_mix_sources():
    plan = make_plan(options(poses={"train": 600 * 10}, shard_size=100), catalogue(600))
    sources = [len({plan.models[part.model].source for part in shard.parts}) for shard in plan.shards]
    assert min(sources) >= 5
    other = make_plan(options(poses={"train": 600 * 10}, shard_size=100, seed=6), catalogue(600))
    assert [s.parts for s in other.shards] != [s.parts for s in plan.shards]


def test_fewer_poses_than_models_leave_models_out():
    plan = make_plan(options(poses={"train": 5}), catalogue(9))
    assert len(plan.models) == 5
    assert Counter(len(samples) for samples in samples_of(plan, "train").values()) == {1: 5}


@pytest.mark.parametrize(
    ("poses", "size", "expected"),
    [
        (10, 256, 16),
        (100, 256, 25),
        (1000, 256, 128),
        (4800, 256, 300),
        (500_000, 256, 1024),
        (500_000, 512, 256),
        (10, 2048, 16),
    ],
)
def test_automatic_shard_size(poses, size, expected):
    assert RenderOptions(poses={"train": poses}, size=size).samples_per_shard() == expected


def test_the_plan_does_not_depend_on_the_catalogue_order():
    ordered = catalogue(30)
    shuffled = list(ordered.models)
    random.Random(3).shuffle(shuffled)
    plans = [make_plan(options(), c) for c in (ordered, Catalogue(tuple(shuffled), ()))]
    described = [
        [(s.split, s.number, [(plan.models[p.model].path, p.first, p.count) for p in s.parts]) for s in plan.shards]
        for plan in plans
    ]
    assert described[0] == described[1]


def test_the_file_gives_the_plan_back(tmp_path):
    rejected = (Rejection("odd\udce3name.pmx", "no_head_bone", "no 頭", "ab" * 32),)
    rules = SplitRules({"train": ("*",), "test": ("source1*",), "validation": ()}, "/somewhere/splits.toml")
    plan = make_plan(options(poses={"train": 100, "test": 9}, splits=rules), catalogue(40, rejected))
    write_plan(plan, tmp_path)
    again = read_plan(tmp_path)
    assert again is not None
    assert again.digest == plan.digest
    assert again.shards == plan.shards
    assert again.rejected == plan.rejected
    assert [dataclasses.replace(m, provenance={}) for m in plan.models] == list(again.models)
    assert again.options.to_json() == plan.options.to_json()
    assert plan_bytes(again) == plan_bytes(plan) == (tmp_path / "plan.json").read_bytes()
    assert b"/somewhere" not in plan_bytes(plan)
    check_same(again, plan.options, tmp_path)


def test_no_plan_and_damaged_plans(tmp_path):
    assert read_plan(tmp_path) is None
    write_plan(make_plan(options(), catalogue(5)), tmp_path)
    content = (tmp_path / "plan.json").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"{}", content.replace(b"mmdgen-plan-1", b"mmdgen-plan-9")):
        (tmp_path / "plan.json").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"plan\.json: is damaged"):
            read_plan(tmp_path)


def test_each_changed_option_is_named(tmp_path):
    plan = make_plan(options(), catalogue(30))
    with pytest.raises(ConfigError) as caught:
        check_same(plan, options(seed=6, poses={"train": 42, "validation": 7}, limit=3, ambient=(0.5, 0.5)), tmp_path)
    message = str(caught.value)
    for part in (
        "--poses was 41, now 42",
        "--seed was 5, now 6",
        "--limit was not given, now 3",
        "--ambient was [0.5, 1.2]",
    ):
        assert part in message
    assert "--validation-poses" not in message
    older = dataclasses.replace(plan, version="0.0.0")
    with pytest.raises(ConfigError, match=f"begun with mmdgen 0.0.0, this is {__version__}"):
        check_same(older, options(), tmp_path)


def test_impossible_options_are_refused():
    for changes in (
        {"poses": {"train": 0}},
        {"poses": {"train": -1, "test": 3}},
        {"vocabulary": "none"},
        {"samples": 3},
        {"size": 0},
        {"ambient": (1.0, 0.5)},
        {"ambient": (0.5, float("inf"))},
        {"outline": float("nan")},
        {"shard_size": -1},
    ):
        with pytest.raises(ConfigError):
            options(**changes)
    with pytest.raises(ConfigError, match=r"no usable model was found \(no_head_bone 1\)"):
        make_plan(options(), Catalogue((), (Rejection("a.pmx", "no_head_bone", "none"),)))


def test_the_card_command():
    assert command_line(RenderOptions(poses={"train": 5})) == "mmdgen render --models DIR --poses 5"
    rich = RenderOptions(
        poses={"train": 5, "test": 2}, seed=3, ambient=(0.5, 1.2), compact=True, characters=8, splits=SplitRules({})
    )
    assert command_line(rich) == (
        "mmdgen render --poses 5 --test-poses 2 --seed 3 --ambient 0.5:1.2 --compact --splits FILE --characters 8"
    )


def test_a_million_samples_over_eight_thousand_models_take_seconds(tmp_path):
    models = catalogue(8000)
    start = time.process_time()
    plan = make_plan(RenderOptions(poses={"train": 1_000_000}), models)
    write_plan(plan, tmp_path)
    again = read_plan(tmp_path)
    elapsed = time.process_time() - start
    assert again is not None
    assert sum(shard.samples for shard in again.shards) == 1_000_000
    assert elapsed < 10, f"planning took {elapsed:.1f} s"
    assert plan.summary()["splits"] == {"train": {"models": 8000, "samples": 1_000_000, "shards": len(plan.shards)}}
    assert plan.images == 1_000_000 * 2 + 8000
