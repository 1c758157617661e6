"""Posing pictures: the chain of networks against the networks by hand, pictures made fit, tables, motions and films."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")
pytest.importorskip("safetensors", reason="needs safetensors (tools/run brings it)")

from mmdgen.cli import pose as cli  # noqa: E402
from mmdgen.cli.draw import over  # noqa: E402
from mmdgen.cli.pose_inputs import poses_of_csv, poses_of_vmd  # noqa: E402
from mmdgen.errors import ConfigError, MmdgenError, TrainError  # noqa: E402
from mmdgen.formats.vmd import write_vmd  # noqa: E402
from mmdgen.model.textures import decode_image  # noqa: E402
from mmdgen.png import encode_png  # noqa: E402
from mmdgen.pose.from_motion import motion_from_poses  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.train import movie, picture  # noqa: E402
from mmdgen.train.images import from_network, to_network  # noqa: E402
from mmdgen.train.networks import NETWORKS, Preset, build_network  # noqa: E402
from mmdgen.train.picture import clear_background, fitted, prepare  # noqa: E402
from mmdgen.train.poser import MOST_KEPT, Poser, find_device, pose_rows  # noqa: E402
from mmdgen.train.runs import load_network, save_network  # noqa: E402

pytestmark = pytest.mark.train

SIZE = 32
TINY = Preset("tiny", 4, 8, 1)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order: the same numbers on every machine, and no fight for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_run(folder: Path, names=NETWORKS, size: int = SIZE) -> Path:
    for name in names:
        save_network(folder, name, build_network(name, TINY, seed=7), TINY, size, 0, {})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


def head(size: int = SIZE) -> np.ndarray:
    """A round something with soft edges on nothing, u8 [S, S, 4]."""
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    alpha = np.clip((0.35 - np.hypot(x, y)) * size / 3, 0, 1)
    image = np.stack([0.5 + x, 0.5 + y, 0.5 - x * y, alpha], axis=2)
    return np.rint(255 * np.where(alpha[..., None] > 0, image, 0)).astype(np.uint8)


@pytest.fixture(scope="module")
def face(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("face") / "face.png"
    path.write_bytes(encode_png(head()))
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(cli.command, [str(argument) for argument in arguments])


def pictures(*values: dict[str, float], run: Path, image: np.ndarray | None = None) -> np.ndarray:
    rows = np.stack([THA1.pose(**value) for value in values])
    return Poser(run).pose(head() if image is None else image, rows)


def close(a: np.ndarray, b: np.ndarray, steps: int = 1) -> bool:
    """Whether pictures agree but for the rounding of sums in another order."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= steps


# -- the networks ------------------------------------------------------------------------------------------------------


def test_the_chain_is_the_networks_behind_one_another(run):
    row = THA1.pose(head_x=0.5, head_y=-1, neck_z=0.25, left_eye=1, right_eye=0.5, mouth=0)
    morpher, rotator, combiner = (load_network(run, name).network for name in NETWORKS)
    with torch.no_grad():
        rest = to_network(torch.from_numpy(head())[None])
        morphed = morpher(rest, torch.tensor([[1, 0.5, 0]])).image
        turned = rotator(morphed, torch.tensor([[0.5, -1, 0.25]]))
        made = combiner(turned.direct, turned.warped, torch.tensor([[0.5, -1, 0.25]])).image
    expected = from_network(made).numpy()
    found = Poser(run).pose(head(), row)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_batches_change_nothing(run):
    rows = np.linspace([-1, -1, -1, 0, 0, 0], [1, 1, 1, 1, 1, 1], 7).astype(np.float32)
    poser = Poser(run)
    one, whole = poser.pose(head(), rows, batch=1), Poser(run).pose(head(), rows, batch=7)
    assert close(one, whole)
    assert close(one, poser.pose(head(), rows, batch=3))
    assert len({picture.tobytes() for picture in one}) == 7


def test_the_morpher_runs_once_per_expression_and_picture(run):
    poser, calls = Poser(run), []
    poser.loaded["morpher"].network.register_forward_hook(lambda _, given, made: calls.append(len(given[1])))
    turning = {"head_y": np.linspace(-1, 1, 9), "left_eye": 0.5}
    first = poser.pose(head(), turning)
    assert calls == [1]
    poser.pose(head(), {"head_x": [0.0, -0.0], "left_eye": 0.5})
    assert calls == [1]
    poser.pose(head(), {"left_eye": [0.5, 1, 1, 0.25]})
    assert calls == [1, 2]
    other = head()[:, ::-1].copy()
    mirrored = poser.pose(other, turning)
    assert calls == [1, 2, 1]
    assert not close(first, mirrored, 3)
    assert close(poser.pose(head(), turning), first)
    poser.pose(head(), {"mouth": np.linspace(0, 1, 3 * MOST_KEPT)})
    assert len(poser._kept) == MOST_KEPT


@pytest.mark.parametrize("there", [(), ("rotator", "combiner")])
def test_missing_networks_are_named(tmp_path, there):
    with pytest.raises(TrainError, match="missing: " + ", ".join(name for name in NETWORKS if name not in there)):
        Poser(make_run(tmp_path, there))


@pytest.mark.parametrize("there", [("morpher",), ("morpher", "rotator")])
def test_a_morpher_alone_makes_expressions_and_turns_nothing(tmp_path, there):
    run = make_run(tmp_path / "run", there)
    poser = Poser(run)
    assert poser.missing == tuple(name for name in NETWORKS if name not in there)
    rest = torch.from_numpy(head())[None]
    with torch.no_grad():
        wanted = from_network(load_network(run, "morpher").network(to_network(rest), torch.tensor([[0.5, 0, 1]])).image)
    assert close(poser.pose(head(), {"left_eye": 0.5}), wanted.numpy())
    for act in (lambda: poser.pose(head(), {"head_y": 0.1}), poser.require_all):
        with pytest.raises(TrainError, match="turning a head takes .*missing: " + ", ".join(poser.missing)):
            act()
    image = tmp_path / "face.png"
    image.write_bytes(encode_png(head()))
    command = ["--run", str(run), "--image", str(image), "--out", str(tmp_path / "x.png"), "--pose"]
    done = CliRunner().invoke(cli.command, [*command, "left_eye=0.5"])
    assert done.exit_code == 0, done.output
    assert "only expressions" in done.stderr
    assert (tmp_path / "x.png").is_file()
    assert isinstance(CliRunner().invoke(cli.command, [*command, "neck_z=1"]).exception, TrainError)
    table, frames = tmp_path / "poses.csv", tmp_path / "frames"
    table.write_text("head_y\n0\n1\n")
    done = invoke("--run", run, "--image", image, "--csv", table, "--out", frames)
    assert isinstance(done.exception, TrainError)
    assert not frames.exists()


def test_too_little_memory_is_said(run, monkeypatch):
    poser = Poser(run)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(poser, "_expressions", full)
    with pytest.raises(TrainError, match=r"memory of cpu is too small for a batch of 3 pictures.*a smaller --batch"):
        poser.pose(head(), {"mouth": [0, 0.5, 1]})


def test_networks_of_other_sizes_are_refused(tmp_path):
    make_run(make_run(tmp_path), ("combiner",), 64)
    with pytest.raises(TrainError, match="morpher 32, rotator 32, combiner 64"):
        Poser(tmp_path)


def test_devices():
    assert find_device("cpu") == "cpu"
    assert find_device("auto") in ("cpu", "cuda")
    for name in ("abacus", "meta", "meta:9:9", "cuda:99"):
        with pytest.raises(ConfigError, match="cannot be used"):
            find_device(name)


@pytest.mark.parametrize("shape", [(SIZE, SIZE, 3), (SIZE, SIZE), (16, SIZE, 4), (64, 64, 4)])
def test_pictures_of_another_kind_are_refused(run, shape):
    with pytest.raises(TrainError, match=r"uint8 \[32, 32, 4\], found"):
        Poser(run).pose(np.zeros(shape, np.uint8), THA1.rest)


def test_rows_by_name_and_by_place():
    np.testing.assert_array_equal(pose_rows({}), THA1.rest[None])
    rows = pose_rows({"head_x": [0.25, 0.5], "mouth": 0.75})
    np.testing.assert_array_equal(rows, [[0.25, 0, 0, 0, 0, 0.75], [0.5, 0, 0, 0, 0, 0.75]])
    np.testing.assert_array_equal(pose_rows(THA1.rest), THA1.rest[None])
    for wrong in ({"head_x": [0, 0], "mouth": [1, 1, 1]}, {"nose": 1}, np.zeros((2, 5)), np.zeros((1, 1, 6))):
        with pytest.raises(ConfigError):
            pose_rows(wrong)


@pytest.mark.parametrize(("name", "value"), [("left_eye", -0.1), ("mouth", 1.01), ("head_y", -2), ("neck_z", np.nan)])
def test_values_outside_their_range_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"pose 1: {name}="):
        pose_rows({name: [0.5, value]})


# -- pictures made fit -------------------------------------------------------------------------------------------------


def _linear(image: np.ndarray) -> np.ndarray:
    """Premultiplied linear light f64 [H, W, 4], by the definition of sRGB."""
    value = image.astype(np.float64) / 255
    colour = np.where(value[..., :3] <= 0.04045, value[..., :3] / 12.92, ((value[..., :3] + 0.055) / 1.055) ** 2.4)
    return np.concatenate([colour * value[..., 3:], value[..., 3:]], axis=2)


@pytest.mark.parametrize("shape", [(100, 100), (33, 33), (20, 20), (64, 64), (301, 301), (48, 20), (17, 90)])
def test_resizing_is_pillows_lanczos_in_linear_light(shape):
    """Pillow's filter, channel by channel in floats, on a picture padded by hand, is an independent oracle."""
    generator = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(generator.random((*shape, 4)), (2, 2, 0))
    image = np.rint(255 * np.clip(3 * (smooth - 0.5) + 0.5, 0, 1)).astype(np.uint8)
    side = max(shape)
    padded = np.zeros((side, side, 4), np.uint8)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    padded[top : top + shape[0], left : left + shape[1]] = image
    if shape[0] != shape[1]:  # Pillow weights what lies beyond the edge as nothing: give it enough edge
        return _compare(fitted(image, SIZE), fitted(padded, SIZE))
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.LANCZOS))
        for plane in np.moveaxis(_linear(padded), 2, 0)
    ]
    return _compare(fitted(image, SIZE), np.stack(planes, axis=2))


def _compare(found: np.ndarray, expected: np.ndarray) -> None:
    wanted = _linear(expected) if expected.dtype == np.uint8 else expected
    assert found.shape == (SIZE, SIZE, 4)
    alpha = np.clip(wanted[..., 3:], 0, 1)
    wanted = np.concatenate([np.clip(wanted[..., :3] / np.maximum(wanted[..., 3:], 1e-6), 0, 1) * alpha, alpha], axis=2)
    np.testing.assert_allclose(_linear(found), wanted, atol=0.006)


def test_a_picture_of_the_right_size_stays(run):
    np.testing.assert_array_equal(fitted(head(), SIZE), head())
    np.testing.assert_array_equal(prepare(head(), SIZE, fit=True), head())


def test_transparent_colours_do_not_bleed():
    image = np.zeros((128, 128, 4), np.uint8)
    image[:] = (0, 255, 0, 0)  # green that cannot be seen
    image[30:98, 30:98] = (200, 40, 90, 255)
    small = fitted(image, SIZE)
    seen = small[small[..., 3] > 8]
    assert np.abs(seen[:, :3].astype(int) - (200, 40, 90)).max() <= 2
    assert small[0, 0, 3] == 0
    assert not prepare(image, SIZE, fit=True)[0, 0].any()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_the_background_is_what_is_joined_to_the_edge(mask):
    image = np.where(mask[..., None], np.array([250, 250, 250, 255]), np.array([40, 30, 90, 255])).astype(np.uint8)
    found = clear_background(image, (255, 255, 255), 5)[..., 3] == 0
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    np.testing.assert_array_equal(found, mask & np.isin(labels, edge[edge > 0]))


def test_a_background_that_winds_takes_no_longer():
    """Stairs one pixel wide, from one corner nearly to the other, and islands of them."""
    side = 1000
    step = np.arange(side - 2)
    image = np.zeros((side, side, 4), np.uint8)
    image[..., 3] = 255
    image[step, step, :3] = image[step, step + 1, :3] = 255
    island = np.arange(100, 900)
    image[island, island - 50, :3] = image[island, island - 49, :3] = 255
    began = time.process_time()
    cleared = clear_background(image, (255, 255, 255))[..., 3] == 0
    assert time.process_time() - began < 10  # turn by turn it takes minutes
    assert cleared.sum() == 2 * len(step)
    assert cleared[step, step].all()


def test_pictures_that_the_networks_cannot_use():
    opaque = np.full((SIZE, SIZE, 4), 255, np.uint8)
    with pytest.raises(TrainError, match=r"no transparent background.*--background-transparent"):
        prepare(opaque, SIZE)
    with pytest.raises(TrainError, match="nothing at its edge has the colour #102030"):
        prepare(opaque, SIZE, background=(16, 32, 48))
    with pytest.raises(TrainError, match="transparent everywhere"):
        prepare(opaque, SIZE, background=(255, 255, 255))
    with pytest.raises(TrainError, match=r"40 x 32 pixels, the networks take 32 x 32.*--fit"):
        prepare(np.zeros((32, 40, 4), np.uint8) + np.arange(40, dtype=np.uint8)[None, :, None], SIZE)
    opaque[8:24, 8:24] = (90, 30, 30, 255)
    assert prepare(opaque, SIZE, background=(255, 255, 255))[..., 3].sum() == 16 * 16 * 255


# -- the command -------------------------------------------------------------------------------------------------------


def test_one_picture(run, face, tmp_path):
    out = tmp_path / "x.png"
    done = invoke("--run", run, "--image", face, "--pose", "left_eye=1, head_y=0.5", "--pose", "mouth=0", "--out", out)
    assert done.exit_code == 0, done.output
    expected = pictures({"left_eye": 1, "head_y": 0.5, "mouth": 0}, run=run)
    np.testing.assert_array_equal(decode_image(out.read_bytes()), expected[0])
    done = invoke("--run", run, "--image", face, "--background", "#102030", "--out", out)
    assert done.exit_code == 0, done.output
    shown = over(pictures({}, run=run)[0], (0x10, 0x20, 0x30))
    np.testing.assert_array_equal(decode_image(out.read_bytes())[..., :3], shown)


def test_a_picture_of_another_size_with_a_background(run, tmp_path):
    drawing = over(head(96), (255, 255, 255))
    path, out = tmp_path / "drawing.png", tmp_path / "x.png"
    path.write_bytes(encode_png(drawing))
    options = ("--run", run, "--image", path, "--out", out)
    refused = invoke(*options)
    assert isinstance(refused.exception, TrainError)
    assert "transparent background" in str(refused.exception)
    refused = invoke(*options, "--background-transparent", "#ffffff")
    assert "96 x 96 pixels" in str(refused.exception)
    assert not out.exists()
    done = invoke(*options, "--background-transparent", "#ffffff", "--fit")
    assert done.exit_code == 0, done.output
    assert decode_image(out.read_bytes()).shape == (SIZE, SIZE, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--image FILE --out FILE"),
        (("--pose", "nose=1"), "nose"),
        (("--pose", "mouth=1", "--pose", "mouth=0"), "given twice"),
        (("--pose", "mouth=2"), "outside"),
        (("--background", "white"), "#rrggbb"),
        (("--background-transparent", "#12"), "#rrggbb"),
        (("--out", "x.gif"), "one picture is a .png file"),
        (("--fps", "3", "--out", "x.png"), "--fps: only with --csv or --vmd"),
        (("--port", "9", "--out", "x.png"), "--port: only with --serve"),
        (("--models", ".", "--out", "x.png"), "--models: only with --serve"),
        (("--serve", "--pose", "mouth=0"), "--pose: not with --serve"),
        (("--serve", "--out", "x.png"), "--out: not with --serve"),
        (("--serve", "--annotations", "."), "--annotations: only with --models"),
        (("--serve", "--background-transparent", "#ffffff"), "only with --image"),
        (("--export-onnx", "x", "--serve"), "not with --serve"),
    ],
)
def test_wrong_usage(run, face, options, said):
    needed = ("--image", face) if "--out" in options and "--serve" not in options else ()
    done = invoke("--run", run, *needed, *options)
    assert done.exit_code == 2
    assert said in done.output


def test_csv_and_vmd_exclude_each_other(run, face, tmp_path):
    done = invoke("--run", run, "--image", face, "--csv", __file__, "--vmd", __file__, "--out", tmp_path / "frames")
    assert done.exit_code == 2
    assert "one of them" in done.output


TABLE = "\ufeffframe, head_y ,mouth\n0,0.5,0\n\n1,-1,\n2,,0.25\n"
TABLE_ROWS = [{"head_y": 0.5, "mouth": 0}, {"head_y": -1}, {"mouth": 0.25}]


def test_a_table_becomes_frames(run, face, tmp_path):
    table, out = tmp_path / "poses.csv", tmp_path / "deep" / "frames"
    table.write_text(TABLE, "utf-8")
    done = invoke("--run", run, "--image", face, "--csv", table, "--pose", "left_eye=1", "--out", out)
    assert done.exit_code == 0, done.output
    expected = pictures(*({**row, "left_eye": 1} for row in TABLE_ROWS), run=run)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    for name, picture_ in zip(names, expected, strict=True):
        np.testing.assert_array_equal(decode_image((out / name).read_bytes()), picture_)
    again = invoke("--run", run, "--image", face, "--csv", table, "--out", out)
    assert isinstance(again.exception, ConfigError)
    assert "holds frames already" in str(again.exception)


def test_a_table_row_by_row(tmp_path):
    table = tmp_path / "poses.csv"
    table.write_text(TABLE, "utf-8")
    whole = poses_of_csv(table)
    np.testing.assert_array_equal(whole, np.stack([THA1.pose(**row) for row in TABLE_ROWS]))
    np.testing.assert_array_equal(poses_of_csv(table, 1, 1), whole[1:2])
    np.testing.assert_array_equal(poses_of_csv(table, 1), whole[1:])
    with pytest.raises(ConfigError, match="no pose in it from row 3 on"):
        poses_of_csv(table, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must name"),
        ("frame\n1\n", "first line must name"),
        ("mouth,mouth\n1,1\n", "each once"),
        ("mouth,nose\n1,1\n", "unknown pose parameter 'nose'"),
        ("mouth\n1\n2\n", "line 3: mouth=2 is outside"),
        ("mouth\nopen\n", "line 2: mouth is no number: 'open'"),
        ("mouth\nnan\n", "line 2: mouth=nan is outside"),
        ("mouth,head_x\n1\n", "line 2 has 1 cells, the first one 2"),
        ("mouth\n", "no pose in it"),
        ('mouth\n"1\n', "unexpected end of data"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_tables_that_make_no_sense(tmp_path, text, said):
    table = tmp_path / "poses.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=said) as caught:
        poses_of_csv(table)
    assert str(caught.value).startswith(str(table))


@pytest.fixture(scope="module")
def dance(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A motion of 31 frames, and its poses."""
    share = np.linspace(0, 1, 31)[:, None]
    rows = (np.array([[-1, 0, 0.5, 0, 1, 1]]) * (1 - share) + np.array([[1, 1, -0.5, 1, 0, 0]]) * share).astype("f4")
    path = tmp_path_factory.mktemp("dance") / "dance.vmd"
    path.write_bytes(write_vmd(motion_from_poses(rows)))
    return path, rows


def test_a_motion_at_any_rate(dance):
    path, rows = dance
    np.testing.assert_allclose(poses_of_vmd(path, 30).values, rows, atol=1e-5)
    np.testing.assert_allclose(poses_of_vmd(path, 10).values, rows[::3], atol=1e-5)
    assert len(poses_of_vmd(path, 60).values) == 61
    np.testing.assert_allclose(poses_of_vmd(path, 60, 3, 5).values[::2], rows[3:6], atol=1e-5)
    assert len(poses_of_vmd(path, 30, 0, 60).values) == 61  # it stays where it ends
    with pytest.raises(ConfigError, match="the frames 40 to 30 hold no picture"):
        poses_of_vmd(path, 30, 40)
    path.with_name("no.vmd").write_bytes(b"not a motion" * 10)
    with pytest.raises(MmdgenError, match=r"no\.vmd.*no VMD file"):
        poses_of_vmd(path.with_name("no.vmd"), 30)


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The pictures of an animation as Pillow reads it, and how long each is shown, in ms."""
    shown, times = [], []
    with Image.open(path) as opened:
        for number in range(opened.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            opened.seek(number)
            shown.append(np.asarray(opened.convert("RGBA")))
            times.append(float(opened.info["duration"]))
    return shown, times


def test_a_motion_becomes_an_animated_png(run, face, dance, tmp_path):
    out = tmp_path / "x.apng"
    done = invoke("--run", run, "--image", face, "--vmd", dance[0], "--first", 2, "--last", 6, "--out", out)
    assert done.exit_code == 0, done.output
    assert "used: 首 -> head_x, head_y, neck_z" in done.output
    shown, times = frames_of(out)
    expected = Poser(run).pose(head(), poses_of_vmd(dance[0], 30, 2, 6).values)
    np.testing.assert_array_equal(np.stack(shown), expected)
    assert times == pytest.approx([1000 / 30] * 5)
    assert [path.name for path in tmp_path.iterdir()] == ["x.apng"]


def test_a_motion_becomes_a_gif(run, face, dance, tmp_path):
    out = tmp_path / "x.gif"
    done = invoke("--run", run, "--image", face, "--vmd", dance[0], "--last", 8, "--out", out, "--fps", 30)
    assert done.exit_code == 0, done.output
    shown, times = frames_of(out)
    expected = Poser(run).pose(head(), poses_of_vmd(dance[0], 30, 0, 8).values)
    assert sum(times) == 300
    assert set(times) == {30.0, 40.0}
    for found, wanted in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(found[..., 3], np.where(wanted[..., 3] >= 128, 255, 0))
        solid = wanted[..., 3] >= 128
        assert np.abs(found[solid][:, :3].astype(int) - wanted[solid][:, :3]).mean() < 6


FAKE = """#!{python}
import pathlib, sys
data = sys.stdin.buffer.read({most})
if {status}:
    sys.exit(print("Unknown encoder 'libx264'", file=sys.stderr) or {status})
pathlib.Path(sys.argv[-1]).write_bytes(" ".join(sys.argv[1:-1]).encode() + b"\\n" + data)
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Installs a program called ffmpeg that stores its options and what it was sent."""

    def install(status: int = 0, most: int = -1) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "ffmpeg"
        program.write_text(FAKE.format(python=sys.executable, status=status, most=most))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a #! line")
@pytest.mark.parametrize(
    ("ending", "options", "layout"),
    [
        ("mp4", (), "rgb24"),
        ("webm", (), "rgba"),
        ("webm", ("--background", "#204060"), "rgb24"),
    ],
)
def test_videos_are_sent_to_ffmpeg(run, face, dance, tmp_path, ffmpeg, ending, options, layout):
    ffmpeg()
    out = tmp_path / f"x.{ending}"
    done = invoke("--run", run, "--image", face, "--vmd", dance[0], "--last", 3, *options, "--out", out, "--fps", 29.97)
    assert done.exit_code == 0, done.output
    head_line, _, raw = out.read_bytes().partition(b"\n")
    assert f"-pix_fmt {layout} -s 32x32 -r 2997/100 -i -" in head_line.decode()
    expected = Poser(run).pose(head(), poses_of_vmd(dance[0], 29.97, 0, 3).values)
    if layout == "rgb24":
        color = (0x20, 0x40, 0x60) if options else (255, 255, 255)
        expected = np.stack([over(frame, color) for frame in expected])
    assert raw == expected.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", out.name]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a #! line")
@pytest.mark.parametrize("most", [-1, 10])
def test_what_ffmpeg_says_is_told(tmp_path, ffmpeg, most):
    ffmpeg(status=3, most=most)
    out = tmp_path / "x.mp4"
    out.write_bytes(b"the old one")
    frames = (np.zeros((256, 256, 3), np.uint8) for _ in range(20))
    with pytest.raises(TrainError, match=r"exit status 3\): Unknown encoder 'libx264'"):
        movie.write_movie(out, frames, 20, 30)
    assert out.read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "x.mp4"]


def test_without_ffmpeg_nothing_is_computed(run, face, dance, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = invoke("--run", tmp_path, "--image", face, "--vmd", dance[0], "--out", tmp_path / "x.mp4")
    assert isinstance(done.exception, ConfigError)  # though the run is missing, too
    assert "apt-get install ffmpeg" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "fps", "said"),
    [("x.avi", 30, "a film ends with"), ("x.gif", 60, "at most 50"), ("x.apng", 0, "0 to 1000"), ("x", 30, "a film")],
)
def test_films_that_cannot_be(tmp_path, name, fps, said):
    with pytest.raises(ConfigError, match=said):
        movie.write_movie(tmp_path / name, [head()], 1, fps)


def test_a_film_needs_frames_and_a_ground_for_mp4(tmp_path, monkeypatch):
    monkeypatch.setattr(movie.shutil, "which", lambda name: name)
    with pytest.raises(ConfigError, match="no frame"):
        movie.write_movie(tmp_path / "x.apng", [], 0, 30)
    with pytest.raises(ConfigError, match="no transparency"):
        movie.write_movie(tmp_path / "x.mp4", [head()], 1, 30)


def test_an_interrupted_film_leaves_nothing(tmp_path):
    def frames():
        yield head()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        movie.write_movie(tmp_path / "x.apng", frames(), 2, 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0.5, 23.976, 29.97, 30, 59.94, 120, 999.5])
def test_rates_of_animated_pngs(tmp_path, fps):
    movie.write_movie(tmp_path / "x.apng", [head(), head()[::-1]], 2, fps)
    assert frames_of(tmp_path / "x.apng")[1] == pytest.approx([1000 / fps] * 2, rel=1e-4)


def test_large_pictures_are_resized_in_bands(monkeypatch):
    image = np.asarray(Image.fromarray(head(64)).resize((200, 200)))
    whole = fitted(image, SIZE)
    monkeypatch.setattr(picture, "_ROWS", 7)
    assert close(fitted(image, SIZE), whole)


def test_any_picture_that_mmdgen_reads(run, tmp_path):
    saved = io.BytesIO()
    Image.fromarray(head(), "RGBA").save(saved, "WEBP", lossless=True)
    path = tmp_path / "face.dat"  # what a file is, its first bytes say
    path.write_bytes(saved.getvalue())
    done = invoke("--run", run, "--image", path, "--out", tmp_path / "x.png")
    assert done.exit_code == 0, done.output
    path.write_bytes(b"hello")
    done = invoke("--run", run, "--image", path, "--out", tmp_path / "x.png")
    assert isinstance(done.exception, MmdgenError)
    assert "face.dat" in str(done.exception)
