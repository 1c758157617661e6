"""`mmdgen doctor`: its verdict is a real render, and it says what is missing.

Whatever draws runs in a process of its own: a process has one GL context, and other tests hold theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmdgen.cli import doctor
from mmdgen.render import devices, gl_setup, gpu_hints

ROOT = Path(__file__).resolve().parent.parent


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from mmdgen.cli.main import main; main()", "doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- a machine that can render ----------------------------------------------------------------------------------------


@pytest.mark.gl
def test_the_report_of_a_real_render() -> None:
    done = run_doctor("--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["problems"]) == (0, True, [])
    assert len(report["gl"]["checks"]) >= 8
    assert all(check["ok"] for check in report["gl"]["checks"])
    assert report["gl"]["pictures_per_s"] > 0
    assert report["gl"]["limits"]["texture_size"] >= 4096
    assert report["gl"]["context"]["renderer"] in [device.get("renderer") for device in report["gl"]["devices"]]
    assert report["machine"]["cores"] >= 1
    assert set(report["packages"]) == set(doctor.PACKAGES)


@pytest.mark.gl
def test_the_report_for_people() -> None:
    done = run_doctor()
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[-1].split(None, 1) == ["verdict", "ready to render"]
    headings = {line[:12].strip() for line in lines}
    assert headings >= {"mmdgen", "system", "python", "packages", "GL devices", "OpenGL", "test render", "machine"}


@pytest.mark.gl
def test_a_device_that_is_not_there() -> None:
    done = run_doctor("--device", "99")
    assert done.returncode == 1
    assert "PROBLEM" in done.stdout
    assert "NOT ready" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.gl
@pytest.mark.parametrize(
    ("before", "after", "check"),
    [
        ("u_colors[v_instance]", "u_colors[1 - v_instance]", "instanced drawing"),
        ("corner.z, 1.0", "-corner.z, 1.0", "depth test"),
        ("u_right - gl_Position.x", "u_right + 9.0 - gl_Position.x", "clip distances"),
        ("texture(u_texture, vec2(0.5))", "pow(texture(u_texture, vec2(0.5)), vec4(0.4545))", "sRGB textures"),
        ("u_colors[v_instance]", "min(u_colors[v_instance], 1.0)", "half-float target, shader with a storage buffer"),
        ("vec4(corner.xy", "vec4(corner.yx", "face culling"),
    ],
)
def test_a_driver_that_draws_wrongly_is_found_out(before: str, after: str, check: str) -> None:
    """Stand in for a broken driver with a shader that does the same wrong."""
    code = f"""
from mmdgen.render import context, selftest
for name in ("_VERTEX", "_FRAGMENT"):
    setattr(selftest, name, getattr(selftest, name).replace({before!r}, {after!r}))
test = selftest.run(context.create_context(), benchmark_s=0.0)
print(test.ok, [check.name for check in test.checks if not check.ok], sep="|")
"""
    ok, failed = run_python(code).strip().split("|")
    assert ok == "False"
    assert check in failed


@pytest.mark.gl
def test_a_shader_that_does_not_compile_is_one_error() -> None:
    code = """
from mmdgen.errors import RenderError
from mmdgen.render import context, selftest
selftest._FRAGMENT = selftest._FRAGMENT.replace("o_color =", "o_color = no_such_name +")
try:
    selftest.run(context.create_context())
except RenderError as error:
    print("no_such_name" in str(error))
"""
    assert run_python(code) == "True\n"


# --- machines that cannot ---------------------------------------------------------------------------------------------


@pytest.mark.gl
def test_a_driver_that_cannot_be_found(tmp_path: Path) -> None:
    """The dispatcher is there, but no vendor: as on a machine with libegl1 alone."""
    empty = str(tmp_path)
    done = run_doctor("--json", __EGL_VENDOR_LIBRARY_DIRS=empty, __EGL_VENDOR_LIBRARY_FILENAMES="")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    assert "OpenGL does not work" in report["problems"][0]["what"]
    assert "mmdgen doctor --fix" in report["problems"][0]["how"]
    assert gl_setup.advice() in report["problems"][0]["how"]
    assert "Traceback" not in done.stderr


def test_missing_and_old_packages_are_problems() -> None:
    found: dict[str, str | None] = dict.fromkeys(map(str, doctor.PACKAGES), "99")
    assert doctor.package_problems(found) == []
    problems = doctor.package_problems({**found, "isal": None, "numpy": "1.26.4", "pillow": "11.9.9"})
    texts = " / ".join(f"{problem['what']}: {problem['how']}" for problem in problems)
    assert len(problems) == 3
    assert "the package isal is missing: pip install isal" in texts
    assert "numpy 1.26.4 is too old" in texts
    assert 'pip install "pillow>=12"' in texts


@pytest.mark.parametrize(
    ("newer", "older"),
    [("10.0", "9.9"), ("5.12", "5.2"), ("2.0.1", "2.0"), ("2.13.0+cpu", "2.12"), ("3.16.0rc1", "3.12")],
)
def test_versions_are_compared_as_numbers(newer: str, older: str) -> None:
    assert doctor._version_key(newer) > doctor._version_key(older)


def test_a_small_machine_gets_hints() -> None:
    roomy = {"disk_free_here": 2**40, "memory_available": 2**36, "shared_memory": 2**33, "open_files": 4096}
    assert doctor.machine_hints(roomy) == []
    for key, value, word in [
        ("disk_free_here", 2**20, "disk"),
        ("memory_available", 2**29, "memory"),
        ("shared_memory", 2**16, "--shm-size"),
        ("open_files", 64, "ulimit"),
    ]:
        (hint,) = doctor.machine_hints({**roomy, key: value})
        assert word in hint
    assert doctor.machine_hints({**roomy, "shared_memory": None, "open_files": -1}) == []  # none, and unlimited


def test_fix_says_what_could_not_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = gl_setup.GlProbe(False, "no driver")
    setup = gl_setup.GlSetup("missing", broken, problem="no driver; then: no network. Ask somebody")
    monkeypatch.setattr(gl_setup, "ensure", lambda folder, log: setup)
    monkeypatch.setattr(gl_setup, "probe", lambda every_device=False: broken)
    result = CliRunner().invoke(doctor.command, ["--fix"])
    assert result.exit_code == 1
    assert "could not be fixed: no driver; then: no network. Ask somebody" in result.output
    assert "OpenGL does not work: no driver" in result.output
    assert "GL devices  none" in result.output


def device(**values: object) -> dict[str, object]:
    return {"index": 0, "software": False, "drm": "", "render_node": "", "cuda": None, **values}


def test_a_device_is_described_with_what_identifies_it() -> None:
    def line(**values: object) -> str:
        return devices.Device.of(device(**values)).line()

    gpu = line(
        renderer="NVIDIA H100", version="4.6.0 NVIDIA 565.77", cuda=3, uuid="05d3", render_node="/dev/dri/renderD128"
    )
    assert gpu == "0: NVIDIA H100 CUDA 3 GPU-05d3 /dev/dri/renderD128 OpenGL 4.6.0 NVIDIA 565.77"
    assert line(problem="eglInitialize failed") == "0: unusable (eglInitialize failed)"
    assert line(software=True, renderer="llvmpipe", version="4.5") == "0: llvmpipe (software) OpenGL 4.5"


def test_the_devices_and_what_auto_takes_are_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = device(index=1, renderer="NVIDIA H100", version="4.6", cuda=0)
    probe = gl_setup.GlProbe(True, "", (device(renderer="llvmpipe", version="4.5", software=True), gpu))
    monkeypatch.setattr(gl_setup, "probe", lambda every_device=False: probe)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    drawn: list[int | None] = []
    monkeypatch.setattr(doctor, "_draw", lambda index: drawn.append(index) or {})
    report = doctor.examine()
    assert drawn == [1], "the test picture is drawn by the device that a run would take"
    rows = dict(doctor._lines(report))
    assert rows["auto"] == "mmdgen render --device auto takes 1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    report = doctor.examine()
    assert not report["ok"]
    assert "no device for 7" in report["problems"][0]["what"]


# --- what keeps a GPU from drawing: one faked machine for each explanation --------------------------------------------

SOFTWARE_ONLY = gl_setup.GlProbe(True, "", (device(software=True, renderer="llvmpipe", version="4.5"),))


def machine(
    root: Path, *files: str, loads: bool = False, locked: tuple[str, ...] = (), **environment: str
) -> gpu_hints.Surroundings:
    """A machine with these files, whose loader finds NVIDIA's EGL or not; `locked` ones may not be used."""
    for file in files:
        path = root / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return gpu_hints.Surroundings(
        root, environment, lambda library: loads, lambda path: "/" + str(path.relative_to(root)) not in locked
    )


DRIVER = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/proc/driver/nvidia/version")
ICD = "/usr/share/glvnd/egl_vendor.d/10_nvidia.json"


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        pytest.param(
            (*DRIVER, "/.dockerenv"),
            {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
            ["NVIDIA_DRIVER_CAPABILITIES=compute,utility lacks graphics", "NVIDIA_DRIVER_CAPABILITIES=all"],
            id="container without graphics",
        ),
        pytest.param(
            (*DRIVER, "/.dockerenv"), {}, ["docker run --gpus all", "Apptainer --nv"], id="container says nothing"
        ),
        pytest.param(
            (*DRIVER, "/run/.containerenv"),
            {"NVIDIA_DRIVER_CAPABILITIES": "all"},
            ["the machine's own driver", "libnvidia-gl"],
            id="the host's driver has no EGL",
        ),
        pytest.param(DRIVER, {}, ["in a container", "headless"], id="no container"),
        pytest.param((*DRIVER,), {"loads": True}, ["no EGL vendor file", gpu_hints.VENDOR_FILE, ICD], id="no ICD"),
        pytest.param(
            (*DRIVER, ICD),
            {"loads": True, "__EGL_VENDOR_LIBRARY_FILENAMES": "/usr/share/glvnd/egl_vendor.d/50_mesa.json"},
            ["__EGL_VENDOR_LIBRARY_FILENAMES=", "unset it"],
            id="variable hides the ICD",
        ),
        pytest.param(
            (*DRIVER, ICD, "/opt/vendors/50_mesa.json"),
            {"loads": True, "__EGL_VENDOR_LIBRARY_DIRS": "/opt/vendors"},
            ["__EGL_VENDOR_LIBRARY_DIRS=", "unset it"],
            id="variable hides the folder",
        ),
        pytest.param(("/dev/nvidiactl", ICD), {"loads": True}, ["no GPU was given", "--gres=gpu"], id="no GPU given"),
        pytest.param(
            (*DRIVER, ICD), {"loads": True, "locked": ("/dev/nvidia0",)}, ["/dev/nvidia0 may not"], id="not for me"
        ),
        pytest.param((*DRIVER, ICD), {"loads": True}, ["version", "MIG"], id="all there"),
    ],
)
def test_why_an_nvidia_gpu_does_not_draw(tmp_path: Path, files: tuple[str, ...], settings: dict, words: list) -> None:
    hints = gpu_hints.gpu_hints(SOFTWARE_ONLY, machine(tmp_path, *files, **settings))
    assert hints[0] == "there is an NVIDIA driver, but EGL does not offer its GPU for drawing"
    assert len(hints) == 2
    for word in words:
        assert word in hints[1]


def test_a_vendor_folder_of_ones_own_does_not_hide_nvidia(tmp_path: Path) -> None:
    around = machine(
        tmp_path, *DRIVER, "/opt/vendors/10_nvidia.json", loads=True, __EGL_VENDOR_LIBRARY_DIRS="/opt/vendors"
    )
    assert "unset" not in " ".join(gpu_hints.gpu_hints(SOFTWARE_ONLY, around))


def test_machines_whose_gpus_draw_or_that_have_none_get_no_hint(tmp_path: Path) -> None:
    gpu = gl_setup.GlProbe(True, "", (device(renderer="NVIDIA H100", version="4.6", cuda=0), *SOFTWARE_ONLY.devices))
    around = machine(tmp_path / "gpu", *DRIVER, loads=True)
    assert gpu_hints.gpu_hints(gpu, around) == []
    assert gpu_hints.gpu_hints(SOFTWARE_ONLY, machine(tmp_path / "none")) == []
    around = machine(tmp_path / "four", *DRIVER, "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3", loads=True)
    (hint,) = gpu_hints.gpu_hints(gpu, around)
    assert "1 of the 4 NVIDIA GPUs" in hint


def test_why_a_mesa_gpu_does_not_draw(tmp_path: Path) -> None:
    locked = machine(tmp_path / "locked", "/dev/dri/renderD128", "/dev/dri/card0", locked=("/dev/dri/renderD128",))
    (hint,) = gpu_hints.gpu_hints(SOFTWARE_ONLY, locked)
    assert "/dev/dri/renderD128" in hint
    assert "group render" in hint
    (hint,) = gpu_hints.gpu_hints(SOFTWARE_ONLY, machine(tmp_path / "card", "/dev/dri/card0"))
    assert "renderD*" in hint
    amd = gl_setup.GlProbe(True, "", (device(renderer="AMD Radeon", version="4.6"),))
    assert gpu_hints.gpu_hints(amd, locked) == []


def test_what_the_assigned_gpus_mean_is_said(tmp_path: Path) -> None:
    gpus = tuple(device(index=i, renderer="NVIDIA A100", version="4.6", cuda=cuda) for i, cuda in enumerate((1, 0)))
    found = gl_setup.GlProbe(True, "", (*gpus, device(index=2, software=True, renderer="llvmpipe", version="4.5")))

    def hint(value: str) -> str:
        around = machine(tmp_path, *DRIVER, "/dev/nvidia1", loads=True, CUDA_VISIBLE_DEVICES=value)
        return " / ".join(gpu_hints.gpu_hints(found, around))

    assert hint("1") == "CUDA_VISIBLE_DEVICES=1: --device auto draws with EGL device 0"
    assert hint("0,1") == "CUDA_VISIBLE_DEVICES=0,1: --device auto draws with EGL device 1, 0"
    assert hint("5").startswith("CUDA_VISIBLE_DEVICES=5: EGL offers no device for 5")
    assert "software" in hint("")
