"""Which GPU draws: EGL's devices by CUDA's numbers, CUDA_VISIBLE_DEVICES, workers over several GPUs, reading back.

EGL is a fake library with several GPUs wherever more than the software renderer is needed.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import fake_backend as fake
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_binding, toy_builder, toy_view

from mmdgen.cli import main as cli_main
from mmdgen.errors import DeviceLostError, RenderError
from mmdgen.generate import engine
from mmdgen.generate.backend import make_backend
from mmdgen.generate.catalogue import scan
from mmdgen.generate.pool import Pool
from mmdgen.generate.run import plan_for, run
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1
from mmdgen.render import devices, egl_probe, gl_setup, readback
from mmdgen.render.devices import AUTO, Device, listing, parse, resolve, select, visible
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import GPU_TILES, Renderer
from mmdgen.render.view import SAMPLE_GRIDS

UUIDS = [str(uuid.UUID(int=0x1000 * (number + 1) << 100 | 0xABC)) for number in range(4)]


def gpu(index: int, cuda: int | None, **values: Any) -> Device:
    made = {"name": "NVIDIA H100", "version": "4.6.0 NVIDIA 565.77", "node": "", "problem": "", "software": False}
    identity = UUIDS[cuda] if cuda is not None and cuda < 4 else ""
    return Device(index=index, cuda=cuda, **{**made, "uuid": identity, **values})


SOFTWARE = gpu(4, None, name="llvmpipe", version="4.5 Mesa", software=True)
# EGL's order is not CUDA's, and Mesa's renderer stands last, as NVIDIA's driver has it on a server.
SERVER = (gpu(0, 2), gpu(1, 0), gpu(2, 3), gpu(3, 1), SOFTWARE)


# --- what EGL says, through a fake library ----------------------------------------------------------------------------


class FakeEgl:
    """libEGL with NVIDIA GPUs of these CUDA numbers (None: a driver that fails to come up) and a software device."""

    def __init__(self, cuda: tuple[int | None, ...]) -> None:
        self.cuda = cuda
        self.current = 0
        self.kept: list[Any] = []
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        table: dict[str, tuple[Any, Any]] = {
            "eglQueryDevicesEXT": (
                self.query_devices,
                (integer, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer)),
            ),
            "eglQueryDeviceStringEXT": (self.device_string, (ctypes.c_void_p, pointer, integer)),
            "eglQueryDeviceAttribEXT": (
                self.attribute,
                (integer, pointer, integer, ctypes.POINTER(ctypes.c_ssize_t)),
            ),
            "eglQueryDeviceBinaryEXT": (
                self.binary,
                (integer, pointer, integer, integer, pointer, ctypes.POINTER(integer)),
            ),
            "eglGetPlatformDisplayEXT": (
                lambda platform, device, attributes: device,
                (pointer, integer, pointer, ctypes.POINTER(integer)),
            ),
            "glGetString": (self.gl_string, (ctypes.c_void_p, ctypes.c_uint)),
        }
        self.functions = {name: ctypes.CFUNCTYPE(*types)(function) for name, (function, types) in table.items()}

    def __getattr__(self, name: str) -> Any:
        """The core functions, as attributes of the library."""

        def function(*values: Any) -> Any:
            if name == "eglGetProcAddress":
                found = self.functions.get(values[0].decode())
                return ctypes.cast(found, ctypes.c_void_p).value if found else None
            if name == "eglInitialize":
                return int(self.is_software(values[0]) or self.cuda[values[0] - 1] is not None)
            if name == "eglChooseConfig":
                values[4]._obj.value = 1
            if name == "eglCreateContext":
                self.current = values[0]
                return 7
            return 0x3001 if name == "eglGetError" else 1

        self.__dict__[name] = function
        return function

    def is_software(self, device: int) -> bool:
        return device > len(self.cuda)

    def query_devices(self, most: int, found: Any, count: Any) -> int:
        for number in range(min(most, len(self.cuda) + 1)):
            found[number] = number + 1
        count[0] = len(self.cuda) + 1
        return 1

    def text(self, value: str) -> int:
        self.kept.append(ctypes.create_string_buffer(value.encode()))
        return ctypes.addressof(self.kept[-1])

    def device_string(self, device: int, name: int) -> int | None:
        software = self.is_software(device)
        if name == 0x3055:
            nvidia = "EGL_NV_device_cuda EGL_EXT_device_drm_render_node EGL_EXT_device_persistent_id"
            return self.text("EGL_MESA_device_software" if software else nvidia)
        return None if software else self.text(f"/dev/dri/renderD{127 + device}")

    def attribute(self, device: int, name: int, value: Any) -> int:
        if name != 0x323A or self.is_software(device) or self.cuda[device - 1] is None:
            return 0
        value[0] = self.cuda[device - 1]
        return 1

    def binary(self, device: int, name: int, most: int, value: int, length: Any) -> int:
        number = self.cuda[device - 1]
        if name != 0x335C or most < 16 or number is None:
            return 0
        ctypes.memmove(value, uuid.UUID(UUIDS[number]).bytes, 16)
        length[0] = 16
        return 1

    def gl_string(self, name: int) -> int:
        software = self.is_software(self.current)
        texts = {
            0x1F00: "NVIDIA Corporation",
            0x1F01: "llvmpipe" if software else f"NVIDIA H100 number {self.current}",
            0x1F02: "4.5 Mesa" if software else "4.6.0 NVIDIA 565.77",
        }
        return self.text(texts[name])


def test_devices_are_read_from_egl(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_egl = FakeEgl((2, None, 0))
    monkeypatch.setattr(egl_probe.ctypes, "CDLL", lambda name: fake_egl)
    report = egl_probe.query(every_device=True)
    found = devices.devices_of(gl_setup.GlProbe(report["ok"], "", tuple(report["devices"])))
    assert [(device.index, device.cuda, device.uuid, device.software, device.draws) for device in found] == [
        (0, 2, UUIDS[2], False, True),
        (1, None, "", False, False),
        (2, 0, UUIDS[0], False, True),
        (3, None, "", True, True),
    ]
    assert "eglInitialize failed" in found[1].problem
    assert (
        found[0].line()
        == f"0: NVIDIA H100 number 1 CUDA 2 GPU-{UUIDS[2]} /dev/dri/renderD128 OpenGL 4.6.0 NVIDIA 565.77"
    )
    assert select(AUTO, found, {"CUDA_VISIBLE_DEVICES": "0"}) == (2,)
    assert select(AUTO, found, {"CUDA_VISIBLE_DEVICES": f"GPU-{UUIDS[2]}"}) == (0,)
    json.dumps(report)


def test_egl_is_asked_about_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable a driver may number only visible GPUs, or none: the child process does not get it."""
    seen: list[dict[str, str]] = []

    def child(command: list[str], env: dict[str, str], **_: Any) -> Any:
        seen.append(env)
        report = {"ok": True, "problem": "", "devices": [], "libraries": []}
        return subprocess.CompletedProcess(command, 0, json.dumps(report).encode(), b"")

    monkeypatch.setattr(gl_setup.subprocess, "run", child)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gl_setup.probe(every_device=True).ok
    assert "CUDA_VISIBLE_DEVICES" not in seen[0]
    assert seen[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "by which the numbers are counted"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


# --- which one is meant -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "variable", "expected"),
    [
        (None, None, (None,)),
        (AUTO, None, (0, 1, 2, 3)),
        (AUTO, "3", (2,)),
        (AUTO, "3,0", (2, 1)),
        (AUTO, " 1 , 2 ", (3, 0)),
        (AUTO, "0,0", (1,)),
        (AUTO, f"GPU-{UUIDS[1]}", (3,)),
        (AUTO, f"gpu-{UUIDS[1][:4].upper()}", (3,)),  # a beginning is enough, as for CUDA
        (AUTO, "", (4,)),
        (AUTO, "-1", (4,)),
        (AUTO, "2,-1,3", (0,)),  # CUDA reads no further than what names none
        (AUTO, "NoDevFiles", (4,)),  # what Slurm sets for jobs without a GPU
        (2, "0", (2,)),  # who names a device by EGL's number means that one
        ((3, 4), None, (3, 4)),
        ("cuda:2", None, (0,)),
        ("cuda:0", "3,1", (2,)),
        ("cuda:1", "3,1", (3,)),
    ],
)
def test_choices(choice: Any, variable: str | None, expected: tuple) -> None:
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert select(choice, SERVER, environment) == expected


@pytest.mark.parametrize(
    ("choice", "variable", "words"),
    [
        (9, None, ["--device 9", "no such device", "CUDA 3"]),
        ("cuda:4", None, ["cuda:4"]),
        ("cuda:1", "3", ["cuda:1"]),
        (AUTO, "7", ["CUDA_VISIBLE_DEVICES=7", "no device for 7", "0 (EGL 1)"]),
        (AUTO, "GPU-ffff", ["no device for GPU-ffff"]),
        (AUTO, "GPU-000", ["several devices for GPU-000"]),
        (AUTO, "MIG-41b2-0", ["MIG", "no graphics"]),
    ],
)
def test_choices_that_cannot_be(choice: Any, variable: str | None, words: list[str]) -> None:
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    with pytest.raises(RenderError) as caught:
        select(choice, SERVER, environment)
    for word in words:
        assert word in str(caught.value)


def test_a_gpu_that_draws_nothing_is_an_error_where_it_is_meant() -> None:
    broken = (gpu(0, 0, version="", name="", problem="eglInitialize failed"), SOFTWARE)
    for choice, environment in ((0, {}), ("cuda:0", {}), (AUTO, {"CUDA_VISIBLE_DEVICES": "0"})):
        with pytest.raises(RenderError, match="eglInitialize failed"):
            select(choice, broken, environment)
    assert select(AUTO, broken, {}) == (4,), "nobody asked for it"


def test_auto_without_nvidia() -> None:
    amd = gpu(0, None, name="AMD Radeon", uuid="")
    assert select(AUTO, (amd, SOFTWARE), {}) == (0,)
    assert select(AUTO, (amd, SOFTWARE), {"CUDA_VISIBLE_DEVICES": ""}) == (0,), "the variable says nothing about it"
    assert select(AUTO, (SOFTWARE,), {"CUDA_VISIBLE_DEVICES": "0"}) == (4,), "no GPU draws at all: software"
    assert select(AUTO, (), {}) == (None,)


@given(order=st.permutations(range(6)), named=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
def test_auto_takes_the_named_gpus_in_their_order(order: list[int], named: list[int]) -> None:
    """Whatever EGL's order is. What one process of several gets does not depend on the others' variables."""
    machine = [gpu(index, cuda, uuid="") for index, cuda in enumerate(order)]
    text = ",".join(map(str, named))
    chosen = select(AUTO, machine, {"CUDA_VISIBLE_DEVICES": text})
    assert [machine[index].cuda for index in chosen if index is not None] == named
    for position, cuda in enumerate(named):
        assert select(f"cuda:{position}", machine, {"CUDA_VISIBLE_DEVICES": text}) == (order.index(cuda),)
    shown = visible(machine, {"CUDA_VISIBLE_DEVICES": text})
    assert shown is not None
    assert [device.cuda for device in shown] == named


def test_parsing() -> None:
    assert [parse(text) for text in ("auto", " AUTO", "3", "0,2", "1,1", "cuda:3")] == [
        AUTO,
        AUTO,
        3,
        (0, 2),
        1,
        "cuda:3",
    ]
    for text in ("", "gpu", "-1", "1,", "cuda:", "cuda:-1", "0x1", "1;2"):
        with pytest.raises(ValueError, match="is no device"):
            parse(text)


def test_nothing_is_asked_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[bool] = []

    def probe(**_: Any) -> gl_setup.GlProbe:
        calls.append(True)
        return gl_setup.GlProbe(False, "no driver")

    assert devices.gpu_files(lambda path: path == "/dev/nvidiactl", tmp_path)
    assert not devices.gpu_files(lambda path: False, tmp_path)
    (tmp_path / "renderD128").touch()
    assert devices.gpu_files(lambda path: False, tmp_path)
    monkeypatch.setattr(devices, "probe", probe)
    monkeypatch.setattr(devices, "gpu_files", lambda: False)
    assert resolve(AUTO) == (None,)
    assert resolve(None) == (None,)
    assert not calls
    with pytest.raises(RenderError, match="no driver"):
        resolve(0)


def test_a_gpu_that_cannot_draw_is_told_and_software_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    software = {"index": 0, "software": True, "drm": "", "render_node": "", "cuda": None, "version": "4.5"}
    monkeypatch.setattr(devices, "probe", lambda every_device: gl_setup.GlProbe(True, "", (software,)))
    monkeypatch.setattr(devices, "gpu_files", lambda: True)
    said: list[str] = []
    assert resolve(AUTO, said.append) == (0,)
    assert len(said) == 1
    assert "mmdgen doctor" in said[0]


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    return CliRunner().invoke(cli_main.cli, ["render", *arguments])


@pytest.mark.gl
def test_the_list_shows_what_this_machine_has() -> None:
    result = command("--device", "list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("* 0: ")
    assert "OpenGL 4." in lines[0]
    assert lines[-1] == "* is what --device auto takes"


def test_the_list_marks_what_auto_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [line[0] for line in listing(SERVER).splitlines()] == ["*", "*", "*", "*", " "]
    assert [line[0] for line in listing(SERVER, {"CUDA_VISIBLE_DEVICES": "1"}).splitlines()] == [
        " ",
        " ",
        " ",
        "*",
        " ",
    ]
    assert "*" not in listing(SERVER, {"CUDA_VISIBLE_DEVICES": "9"})
    monkeypatch.setattr(gl_setup, "probe", lambda every_device: gl_setup.GlProbe(False, "no libEGL"))
    assert command("--device", "list").output == "no device: no libEGL\n"


def test_a_device_that_is_none_is_wrong_usage() -> None:
    result = command("--poses", "10", "--device", "second")
    assert result.exit_code == 2
    assert "'second' is no device" in result.output


# --- workers over several GPUs ----------------------------------------------------------------------------------------


class Telling:
    """A handler that tells its config, waits for four of its kind, and ends its process when it is told to."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.report = {"device": config.get("device"), "other": config["other"]}
        self.folder = Path(config["other"])
        (self.folder / str(os.getpid())).touch()

    def handle(self, task: Any, note: Any) -> Any:
        if task == "die":
            os._exit(3)
        while len(list(self.folder.iterdir())) < task:
            time.sleep(0.01)
        return self.report


def test_workers_are_spread_and_replaced_evenly(tmp_path: Path) -> None:
    tasks: deque[Any] = deque([4] * 4)
    started: list[Any] = []
    died: list[Any] = []
    config = {"other": str(tmp_path)}
    with Pool("test_device:Telling", config, 4, variants=[{"device": 0}, {"device": 2}]) as pool:
        alive: dict[int, Any] = {}
        for event in pool.run(tasks):
            if event.kind == "ready":
                assert event.value["other"] == str(tmp_path)
                started.append(event.value["device"])
                alive[event.worker] = event.value["device"]
                if len(started) == 4:
                    assert sorted(alive.values()) == [0, 0, 2, 2]
                    tasks.extend(["die", 5, 5, 5, 5])
            elif event.kind == "died":
                died.append(alive.pop(event.worker))
            elif event.kind == "done":
                assert event.value["device"] == alive[event.worker]
    assert len(died) == 1
    assert len(started) == 5
    assert sorted(alive.values()) == [0, 0, 2, 2], "whoever replaced the dead one has its GPU"


class DeviceBackend(fake.FakeBackend):
    """Says which device it was given. Where MEETING names a folder, it draws when two devices have come there."""

    def __init__(self, device: Any = None) -> None:
        super().__init__()
        self.device = device
        if "MEETING" in os.environ:
            (Path(os.environ["MEETING"]) / str(device)).touch()

    def scene(self, prepared: Any) -> Any:
        while "MEETING" in os.environ and len(os.listdir(os.environ["MEETING"])) < 2:
            time.sleep(0.01)
        return super().scene(prepared)

    def report(self) -> dict[str, Any]:
        return {**super().report(), "renderer": f"fake on {self.device}"}


class Plain(fake.FakeBackend):
    """Draws on the CPU: takes no device."""


def test_a_backend_is_told_its_device_only_where_it_takes_one() -> None:
    backends = [
        make_backend(f"test_device:{name}", device) for name in ("DeviceBackend", "Plain") for device in (3, None)
    ]
    assert [backend.report()["renderer"] for backend in backends] == ["fake on 3", "fake on None", "fake", "fake"]


def test_a_run_uses_all_chosen_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU", "1")
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    (tmp_path / "meeting").mkdir()
    asked: list[Any] = []

    def chosen(choice: Any, say: Any) -> tuple[int, ...]:
        asked.append(choice)
        say("told")
        return (1, 3)

    monkeypatch.setattr(devices, "resolve", chosen)
    for number in range(6):
        fake.write_model(tmp_path / "models" / f"{number}" / "model.pmx", f"m{number}")
    plan = plan_for(
        tmp_path / "out",
        fake.options(poses={"train": 24}, shard_size=6),
        lambda: scan(tmp_path / "models", workers=1, examiner=fake.EXAMINER),
    )
    messages: list[str] = []
    run(
        plan,
        tmp_path / "models",
        tmp_path / "out",
        workers=2,
        backend="test_device:DeviceBackend",
        device="auto",
        on_progress=lambda progress: messages.append(progress.message) if progress.message else None,
    )
    assert asked == ["auto"]
    assert messages == ["told"]
    drawn = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["gl"]
    assert [report["renderer"] for report in drawn["several"]] == ["fake on 1", "fake on 3"]
    assert "device" not in (tmp_path / "out" / "plan.json").read_text("utf-8"), "a dataset does not depend on it"


@pytest.mark.parametrize(
    ("cores", "gpus", "expected"), [(16, 1, 8), (128, 8, 64), (2, 1, 2), (12, 2, 6), (64, 1, 8), (1, 1, 2)]
)
def test_processes_for_gpus(monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, expected: int) -> None:
    monkeypatch.setattr(engine, "default_workers", lambda: cores)
    assert engine.hardware_workers(gpus) == expected


# --- reading pictures back, with the real GL --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def renderer() -> Any:
    with Renderer(tiles=(3, 2)) as one:
        yield one


@pytest.fixture(scope="module")
def scene(renderer: Renderer) -> Any:
    with renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view(size=32))) as one:
        yield one


POSES = sample_poses(THA1, 1, "read back", 0, 40)


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.gl
def test_generators_may_be_interleaved(scene: Any) -> None:
    """Each has batches of its own under way, and none gets another's pictures."""
    posed, expressions = list(scene.posed(POSES)), list(scene.expressions(POSES))
    assert not same(posed, expressions)
    backwards = list(scene.posed(POSES[::-1]))
    pairs = list(zip(scene.posed(POSES), scene.expressions(POSES), scene.posed(POSES[::-1]), strict=True))
    assert same([first for first, _, _ in pairs], posed)
    assert same([second for _, second, _ in pairs], expressions)
    assert same([third for _, _, third in pairs], backwards)


@pytest.mark.gl
def test_pictures_are_the_receivers_own(scene: Any) -> None:
    kept = list(scene.posed(POSES))
    before = [picture.copy() for picture in kept]
    list(scene.posed(POSES[::-1]))
    assert same(kept, before)
    kept[0][:] = 0
    assert same(list(scene.posed(POSES)), before)


def reads_of(renderer: Renderer) -> readback.Readback:
    (target,) = (target for target in renderer._targets.values() if target.tiles == (3, 2) and target.size == 32)
    assert target._readback is not None
    return target._readback


@pytest.mark.gl
def test_buffers_come_back_also_from_generators_that_end_early(scene: Any, renderer: Renderer) -> None:
    list(scene.posed(POSES))
    whole = reads_of(renderer).buffers
    assert whole >= 1
    for _ in range(20):
        next(scene.posed(POSES))
    assert reads_of(renderer).buffers == whole, "an abandoned generator gives its buffers back"
    open_ones = [scene.posed(POSES) for _ in range(3)]
    for one in open_ones:
        next(one)
    for one in open_ones:
        one.close()
    assert same(list(scene.posed(POSES[:7])), list(itertools.islice(scene.posed(POSES), 7)))


@pytest.mark.gl
def test_without_mapped_buffers_the_pictures_are_the_same(monkeypatch: pytest.MonkeyPatch, renderer: Renderer) -> None:
    prepared = prepare_model(toy_builder().model(), toy_binding(), toy_view(size=48))
    pictures, kept = [], []
    for _ in range(2):
        monkeypatch.setattr(renderer, "_targets", {})  # a target of its own for each
        kept.append(renderer._targets)
        with renderer.scene(prepared) as scene:
            pictures.append([*scene.posed(POSES[:9]), *scene.expressions(POSES[:9])])
        monkeypatch.setattr(readback, "gl_functions", lambda context: None)
    monkeypatch.undo()
    renderer._targets.update({(*key, number): item for number, found in enumerate(kept) for key, item in found.items()})
    assert same(*pictures)


@pytest.mark.gl
def test_this_driver_has_the_functions(renderer: Renderer) -> None:
    """Else the tests above would say nothing about mapped buffers. GL 4.5 is what all supported drivers have."""
    functions = readback.gl_functions(renderer.context)
    assert functions is not None
    PYTHON_LOCK_KEPT = 0x4  # ctypes: FUNCFLAG_PYTHONAPI, a call that keeps the interpreter lock
    assert not any(type(function)._flags_ & PYTHON_LOCK_KEPT for function in functions.values())  # type: ignore[attr-defined]


@pytest.mark.gl
@pytest.mark.parametrize(("answer", "words"), [(0x911B, "did not finish"), (0x911D, "could not be waited for")])
def test_a_gpu_that_hangs_is_lost(renderer: Renderer, scene: Any, answer: int, words: str, monkeypatch: Any) -> None:
    list(scene.posed(POSES[:2]))
    reads = reads_of(renderer)
    assert reads.gl is not None
    monkeypatch.setitem(reads.gl, "glClientWaitSync", lambda fence, flags, patience: answer)
    with pytest.raises(DeviceLostError, match=words):
        list(scene.posed(POSES))
    monkeypatch.undo()
    assert len(list(scene.posed(POSES))) == len(POSES), "the buffers of the failed ones are back"


class Tiles:
    """Stands for a renderer: `tiles_for` needs no context."""

    tiles: ClassVar[tuple[int, int]] = GPU_TILES


@given(size=st.integers(16, 4096), samples=st.sampled_from(sorted(SAMPLE_GRIDS)))
def test_atlases_fit_every_driver(size: int, samples: int) -> None:
    columns, rows = Renderer.tiles_for(Tiles(), size, samples)  # type: ignore[arg-type]
    side = size * SAMPLE_GRIDS[samples]
    assert 1 <= columns <= GPU_TILES[0]
    assert 1 <= rows <= GPU_TILES[1]
    assert max(columns, rows) * side <= 16384 or (columns, rows) == (1, 1)
    assert columns * rows * size <= 16384
    assert columns * rows * side * side <= 1 << 25 or (columns, rows) == (1, 1)
    if size <= 512 and samples <= 4:
        assert (columns, rows) == GPU_TILES, "batches as large as they were meant to be"


@pytest.mark.gl
def test_whatever_draws_keeps_to_the_visible_gpus() -> None:
    """Scanning, annotating and drawing too, which have no --device: a renderer takes what `auto` takes."""
    code = """
import sys
from mmdgen.render import renderer
asked = []
renderer.resolve = lambda choice: asked.append(choice) or (0,)
from mmdgen.generate.gl_backend import GlBackend
renderer.Renderer().release()
GlBackend().close()
GlBackend(device=0).close()
print(asked)
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "['auto', 'auto', 0]\n", done.stderr
