"""Trained networks come back from their files as they went in, or not at all; ONNX files compute what torch does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")
pytest.importorskip("safetensors", reason="needs safetensors (tools/run brings it)")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import Module  # noqa: E402

from mmdgen import fsio  # noqa: E402
from mmdgen.errors import ConfigError, DatasetError, TrainError  # noqa: E402
from mmdgen.train import export_onnx, networks, runs  # noqa: E402

pytestmark = pytest.mark.train

TINY = networks.Preset("tiny", 4, 8, 1)
DATA = {"sha256": "ab" * 32, "names": ["head_x", "口"], "samples": 12}


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(run: Path, name: str = "morpher", seed: int = 1, examples: int = 100) -> Module:
    network = networks.build_network(name, TINY, seed)
    runs.save_network(run, name, network, TINY, 32, examples, DATA)
    return network


def same(first: Module, second: Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_every_network_comes_back(tmp_path: Path) -> None:
    assert runs.networks_of(tmp_path / "nothing") == ()
    written = {}
    for number, name in enumerate(reversed(networks.NETWORKS)):
        written[name] = saved(tmp_path, name, seed=number, examples=number)
    assert runs.networks_of(tmp_path) == networks.NETWORKS
    for number, name in enumerate(reversed(networks.NETWORKS)):
        loaded = runs.load_network(tmp_path, name)
        assert same(loaded.network, written[name])
        assert type(loaded.network) is type(written[name])
        assert (loaded.name, loaded.preset, loaded.image_size) == (name, TINY, 32)
        assert (loaded.examples, loaded.data) == (number, DATA)
        assert not loaded.network.training
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.network.parameters())
        inputs = networks.example_inputs(name, 32)
        with torch.no_grad():
            for one, other in zip(loaded.network(**inputs), written[name](**inputs), strict=True):
                assert torch.equal(one, other)


def test_the_description_beside_it_says_the_same(tmp_path: Path) -> None:
    saved(tmp_path)
    found = json.loads((tmp_path / "morpher/network.json").read_text("utf-8"))
    assert found["preset"] == {"name": "tiny", "base": 4, "most": 8, "blocks": 1}
    assert (found["network"], found["image_size"], found["examples"]) == ("morpher", 32, 100)
    assert found["parameters"] == networks.parameter_count(networks.empty_network("morpher", TINY))
    assert found["data"] == DATA
    assert sorted(path.name for path in (tmp_path / "morpher").iterdir()) == ["network.json", "weights.safetensors"]
    assert set(load_file(tmp_path / "morpher/weights.safetensors")) == set(
        networks.empty_network("morpher", TINY).state_dict()
    )


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever layout its tensors have in memory, and compiled or not."""
    network = saved(tmp_path / "a")
    runs.save_network(tmp_path / "b", "morpher", torch.compile(network, backend="eager"), TINY, 32, 100, DATA)
    spread = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]: as documented
    runs.save_network(tmp_path / "c", "morpher", spread, TINY, 32, 100, DATA)
    for name in ("weights.safetensors", "network.json"):
        files = [(tmp_path / folder / "morpher" / name).read_bytes() for folder in "abc"]
        assert files[0] == files[1] == files[2]


def test_a_loaded_network_is_free_of_its_file(tmp_path: Path) -> None:
    """It can be trained on while its file is written again."""
    first = saved(tmp_path)
    loaded = runs.load_network(tmp_path, "morpher")
    saved(tmp_path, seed=2)
    assert same(loaded.network, first)
    with torch.no_grad():
        next(loaded.network.parameters()).add_(1)
    assert not same(loaded.network, first)
    assert same(runs.load_network(tmp_path, "morpher").network, networks.build_network("morpher", TINY, 2))


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = saved(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "morpher").iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DatasetError, match="disk is full"):
        saved(tmp_path, seed=2)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "morpher").iterdir()} == before
    assert same(runs.load_network(tmp_path, "morpher").network, first)


def test_an_interruption_between_the_files_leaves_the_new_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)

    def stop(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fsio, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, seed=2, examples=200)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, "rotator", seed=2, examples=50)
    monkeypatch.undo()
    assert json.loads((tmp_path / "morpher/network.json").read_text("utf-8"))["examples"] == 100
    loaded = runs.load_network(tmp_path, "morpher")
    assert loaded.examples == 200
    assert same(loaded.network, networks.build_network("morpher", TINY, 2))
    assert runs.networks_of(tmp_path) == ("morpher", "rotator")
    assert runs.load_network(tmp_path, "rotator").examples == 50


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_no_such_network_is_not_saved(tmp_path: Path) -> None:
    network = networks.build_network("morpher", TINY)
    with pytest.raises(TrainError, match="another preset"):
        runs.save_network(tmp_path, "morpher", network, networks.Preset("wide", 8, 8, 1), 32, 0, {})
    with pytest.raises(TrainError, match="missing"):
        runs.save_network(tmp_path, "morpher", network, networks.Preset("deep", 4, 8, 2), 32, 0, {})
    with pytest.raises(TrainError, match="unknown"):
        runs.save_network(tmp_path, "morpher", networks.build_network("rotator", TINY), TINY, 32, 0, {})
    with pytest.raises(ConfigError, match="steps of 8"):
        runs.save_network(tmp_path, "morpher", network, TINY, 33, 0, {})
    with pytest.raises(ConfigError, match="eyebrows"):
        runs.save_network(tmp_path, "eyebrows", network, TINY, 32, 0, {})
    with torch.no_grad():
        next(network.parameters())[0] = float("inf")
    with pytest.raises(TrainError, match="not finite"):
        runs.save_network(tmp_path, "morpher", network, TINY, 32, 0, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TrainError, match="cannot be made"):
        saved(tmp_path / "run")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    saved(tmp_path, "rotator")
    with pytest.raises(TrainError, match=r"no trained combiner.*there: rotator.*mmdgen train combiner"):
        runs.load_network(tmp_path, "combiner")
    with pytest.raises(ConfigError, match="morpher, rotator, combiner"):
        runs.load_network(tmp_path, "eyebrows")


@pytest.mark.parametrize(
    ("key", "value"),
    [("preset", {"name": "tiny", "base": 8, "most": 8, "blocks": 1}), ("image_size", 64), ("network", "rotator")],
)
def test_a_description_of_another_network_is_noticed(tmp_path: Path, key: str, value: object) -> None:
    saved(tmp_path)
    path = tmp_path / "morpher/network.json"
    description = json.loads(path.read_text("utf-8")) | {key: value}
    path.write_text(json.dumps(description), "utf-8")
    with pytest.raises(TrainError, match=f"says {key}.*different runs"):
        runs.load_network(tmp_path, "morpher")
    path.write_text("{", "utf-8")
    with pytest.raises(TrainError, match="damaged"):
        runs.load_network(tmp_path, "morpher")
    path.write_text("[]", "utf-8")
    with pytest.raises(TrainError, match="not an object"):
        runs.load_network(tmp_path, "morpher")


def test_weights_in_the_wrong_folder_are_noticed(tmp_path: Path) -> None:
    saved(tmp_path, "rotator")
    (tmp_path / "rotator").rename(tmp_path / "morpher")
    with pytest.raises(TrainError, match="expected a 'morpher'"):
        runs.load_network(tmp_path, "morpher")


def rewrite(path: Path, tensors: dict, **changes: object) -> None:
    """Write a weights file with a right checksum, whatever it says."""
    stored = json.loads(path.with_name("network.json").read_text("utf-8")) | changes
    path.with_name("network.json").unlink()
    stored["sha256"] = runs._checksum(tensors, stored)
    save_file(tensors, path, {"mmdgen": json.dumps(stored)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"preset": {"name": "tiny", "base": 8, "most": 8, "blocks": 1}}, "another preset"),
        ({"preset": {"name": "tiny", "base": 4, "most": 8, "blocks": 2}}, "missing"),
        ({"preset": {"name": "tiny", "base": -4, "most": 8, "blocks": 2}}, "damaged"),
        ({"preset": {"name": "tiny"}}, "damaged"),
        ({"image_size": 33}, "damaged"),
        ({"examples": "many"}, "lacks examples"),
        ({"data": None}, "lacks data"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    saved(tmp_path)
    path = tmp_path / "morpher/weights.safetensors"
    rewrite(path, load_file(path), **changes)
    with pytest.raises(TrainError, match=message):
        runs.load_network(tmp_path, "morpher")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "morpher/weights.safetensors"
    tensors = load_file(path)
    tensors["mask.weight"][0, 0, 0, 0] = float("nan")
    rewrite(path, tensors)
    with pytest.raises(TrainError, match=r"mask\.weight holds values that are not finite"):
        runs.load_network(tmp_path, "morpher")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "morpher/weights.safetensors"
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(TrainError, match="not written by mmdgen"):
        runs.load_network(tmp_path, "morpher")
    save_file({key: value.half() for key, value in tensors.items()}, path, {"mmdgen": "{}"})
    with pytest.raises(TrainError, match="float16"):
        runs.load_network(tmp_path, "morpher")
    save_file(tensors, path, {"mmdgen": "[]"})
    with pytest.raises(TrainError, match="not an object"):
        runs.load_network(tmp_path, "morpher")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "morpher/weights.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TrainError, match="damaged"):
            runs.load_network(tmp_path, "morpher")
    path.write_bytes(whole + b"x")
    with pytest.raises(TrainError, match="damaged"):
        runs.load_network(tmp_path, "morpher")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    saved(run)
    return run


@given(place=st.floats(0, 1, exclude_max=True), header=st.booleans(), flip=st.integers(1, 255))
@settings(max_examples=80)
def test_no_changed_byte_goes_unnoticed(whole_run: Path, place: float, header: bool, flip: int) -> None:
    path = whole_run / "morpher/weights.safetensors"
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little") if header else len(whole)
    changed = bytearray(whole)
    changed[int(place * end)] ^= flip
    path.write_bytes(changed)
    try:
        runs.load_network(whole_run, "morpher")
    except TrainError:
        return
    finally:
        path.write_bytes(whole)
    # Spaces that fill up the header are all that may differ.
    assert whole[int(place * end)] == ord(" ")
    assert chr(changed[int(place * end)]).isspace()


# --- ONNX -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("onnx", reason="needs onnx (tools/run brings it)")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (tools/run brings it)")
    run, out = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("out") / "onnx"
    for number, name in enumerate(networks.NETWORKS):
        saved(run, name, seed=number)
    assert export_onnx.export(run, out) == {name: out / f"{name}.onnx" for name in networks.NETWORKS}
    return run, out


def test_exported_networks_compute_what_torch_computes(exported: tuple[Path, Path]) -> None:
    run, out = exported
    worst = export_onnx.check(run, out, batches=(1, 3))
    assert set(worst) == set(networks.NETWORKS)
    assert 0 < max(worst.values()) < 2e-4
    with pytest.raises(TrainError, match="differs from torch"):
        export_onnx.check(run, out, tolerance=0.0)


def test_exported_files_say_what_they_are(exported: tuple[Path, Path]) -> None:
    import onnx

    for name in networks.NETWORKS:
        model = onnx.load(exported[1] / f"{name}.onnx")
        stored = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "mmdgen"))
        assert (stored["network"], stored["image_size"], stored["examples"]) == (name, 32, 100)
        assert tuple(stored["pose"]) == networks.POSES[name]
        axes = {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert axes["pose"] == ["batch", 3]
        assert all(shape[0] == "batch" and shape[2:] in ([], [32, 32]) for shape in axes.values())
        assert model.graph.output[0].name == ("direct" if name == "rotator" else "result")


def test_a_file_of_another_training_is_noticed(exported: tuple[Path, Path], tmp_path: Path) -> None:
    out = exported[1]
    saved(tmp_path, "morpher", seed=9)
    with pytest.raises(TrainError, match=r"morpher\.onnx: differs from torch"):
        export_onnx.check(tmp_path, out)
    saved(tmp_path, "combiner", seed=2)
    (tmp_path / "morpher/weights.safetensors").unlink()
    assert set(export_onnx.check(tmp_path, out)) == {"combiner"}
    (tmp_path / "combiner.onnx").write_bytes((out / "rotator.onnx").read_bytes())
    with pytest.raises(TrainError, match="expected"):
        export_onnx.check(tmp_path, tmp_path)
    (tmp_path / "combiner.onnx").write_bytes(b"no graph")
    with pytest.raises(TrainError, match="does not load"):
        export_onnx.check(tmp_path, tmp_path)
    (tmp_path / "combiner.onnx").unlink()
    with pytest.raises(TrainError, match="export the run first"):
        export_onnx.check(tmp_path, tmp_path)


def test_nothing_to_export_and_nothing_to_export_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"mmdgen\[onnx\]"):
        export_onnx.export(tmp_path, tmp_path / "out")
    monkeypatch.undo()
    pytest.importorskip("onnx", reason="needs onnx (tools/run brings it)")
    with pytest.raises(TrainError, match="no trained network"):
        export_onnx.export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
