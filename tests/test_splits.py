"""Splits follow folders, never models twice, and never come out empty."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.errors import ConfigError
from mmdgen.generate.splits import SPLITS, SplitRules, assign, read_rules, source_folder, units

MANY = [f"folder{index:03d}/model{model}/m.pmx" for index in range(300) for model in range(index % 4 + 1)]


def rules(**patterns: list[str]) -> SplitRules:
    return SplitRules({split: tuple(patterns.get(split, ())) for split in SPLITS}, "splits.toml")


def test_units_are_the_first_folder_below_the_shared_one():
    assert units(["a/x/m.pmx", "b/y/m.pmx", "loose.pmx"]) == {
        "a/x/m.pmx": "a",
        "b/y/m.pmx": "b",
        "loose.pmx": "loose.pmx",
    }
    # one source folder: by the models' own folders, and variants in one folder stay together
    assert units(["a/x/1.pmx", "a/x/2.pmx", "a/y/m.pmx"]) == {
        "a/x/1.pmx": "a/x",
        "a/x/2.pmx": "a/x",
        "a/y/m.pmx": "a/y",
    }
    # everything in one folder: each model by itself
    assert units(["a/1.pmx", "a/2.pmx"]) == {"a/1.pmx": "a/1.pmx", "a/2.pmx": "a/2.pmx"}
    assert units(["1.pmx", "2.pmx"]) == {"1.pmx": "1.pmx", "2.pmx": "2.pmx"}
    assert units([]) == {}
    assert source_folder("a/b/c.pmx") == "a"
    assert source_folder("c.pmx") == ""


def test_hash_assignment_is_by_folder_and_near_a_tenth():
    result = assign(MANY, SPLITS).split_of
    assert set(result) == set(MANY)
    by_folder: dict[str, set[str]] = {}
    for path, split in result.items():
        by_folder.setdefault(source_folder(path), set()).add(split)
    assert all(len(found) == 1 for found in by_folder.values())
    shares = {split: sum(found == {split} for found in by_folder.values()) / 300 for split in SPLITS}
    assert shares["train"] == pytest.approx(0.8, abs=0.07)
    assert shares["validation"] == pytest.approx(0.1, abs=0.05)
    assert shares["test"] == pytest.approx(0.1, abs=0.05)


def test_folders_stay_where_they_are():
    """More folders, another order or another request move nobody between the held-out splits and training."""
    few = [path for path in MANY if int(path[6:9]) < 150]
    whole, part = assign(MANY, SPLITS).split_of, assign(random.Random(1).sample(few, len(few)), SPLITS).split_of
    assert all(whole[path] == part[path] for path in few)
    pair = assign(MANY, ["train", "validation"]).split_of
    assert all(pair[path] == ("train" if split == "test" else split) for path, split in whole.items())


@given(
    folders=st.lists(st.integers(1, 3), min_size=1, max_size=8),
    requested=st.sets(st.sampled_from(SPLITS), min_size=1),
    salt=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_no_requested_split_is_empty_and_units_stay_whole(folders, requested, salt):
    paths = [f"s{salt}-{index}/m{model}/m.pmx" for index, count in enumerate(folders) for model in range(count)]
    unit_of = units(paths)
    wanted = sorted(requested)
    if len(set(unit_of.values())) < len(wanted) and len(wanted) > 1:
        with pytest.raises(ConfigError, match="need models from"):
            assign(paths, wanted)
        return
    result = assign(paths, wanted).split_of
    assert set(result) == set(paths)
    assert set(result.values()) == set(wanted)
    for unit in set(unit_of.values()):
        assert len({result[path] for path in paths if unit_of[path] == unit}) == 1
    assert result == assign(paths[::-1], wanted).split_of


def test_the_smallest_folder_moves_and_never_the_last_of_train():
    paths = [f"big{i}/m{j}.pmx" for i in range(2) for j in range(9)] + ["small/m.pmx"]
    before = assign(paths, ["train"]).split_of
    assert set(before.values()) == {"train"}
    result = assign(paths, ["train", "validation"]).split_of
    held = {source_folder(path) for path, split in result.items() if split == "validation"}
    assert held == {"small"}, "precondition: no folder of this test hashes to validation; the smallest one is moved"


def test_patterns_first_match_wins_in_the_order_test_validation_train():
    paths = ["anime/miku/m.pmx", "anime/rin/m.pmx", "vtuber/a/m.pmx", "vtuber/b/m.pmx", "loose.pmx"]
    found = assign(paths, SPLITS, rules(train=["*"], validation=["vtuber"], test=["vtuber/b", "anime/r*"]))
    assert found.split_of == {
        "anime/miku/m.pmx": "train",
        "anime/rin/m.pmx": "test",
        "vtuber/a/m.pmx": "validation",
        "vtuber/b/m.pmx": "test",
        "loose.pmx": "train",
    }
    assert found.warnings == ()


def test_patterns_distinguish_case_and_cross_slashes():
    found = assign(["Anime/x/y/m.pmx", "anime/x/m.pmx"], ["train", "test"], rules(train=["anime/*"], test=["Anime/*"]))
    assert found.split_of == {"Anime/x/y/m.pmx": "test", "anime/x/m.pmx": "train"}


def test_a_folder_without_a_split_is_named():
    with pytest.raises(ConfigError, match=r'splits.toml: no pattern matches games \(2 models\).*"\*"'):
        assign(["anime/m.pmx", "games/a.pmx", "games/b.pmx"], ["train"], rules(train=["anime"]))


def test_a_pattern_that_decides_nothing_is_a_warning():
    found = assign(["anime/m.pmx"], ["train"], rules(train=["anime", "manga/*"]))
    assert len(found.warnings) == 1
    assert "'manga/*'" in found.warnings[0]


def test_splits_that_nobody_asked_for_take_their_models_away():
    paths = ["anime/m.pmx", "vtuber/m.pmx"]
    found = assign(paths, ["train"], rules(train=["*"], test=["vtuber"]))
    assert found.split_of == {"anime/m.pmx": "train"}
    with pytest.raises(ConfigError, match="no usable model is left for validation"):
        assign(paths, ["train", "validation"], rules(train=["*"], test=["vtuber"]))


def test_reading_the_file(tmp_path):
    file = tmp_path / "splits.toml"
    file.write_text('train = ["anime/*", "日本/*"]\ntest = ["vtuber"]\n', "utf-8")
    found = read_rules(file)
    assert found.to_json() == {"train": ["anime/*", "日本/*"], "validation": [], "test": ["vtuber"]}
    for text, message in (
        ('trian = ["x"]', "unknown key 'trian'"),
        ('train = "x"', "must be a list"),
        ("train = [1]", "must be a list"),
        ("train = [", "not a TOML file"),
    ):
        file.write_text(text, "utf-8")
        with pytest.raises(ConfigError, match=message):
            read_rules(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(tmp_path / "none.toml")
