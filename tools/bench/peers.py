"""Other programs draw the same heads: Blender's Workbench (bpy) and pyrender, for `render.py`.

    python tools/bench/peers.py check [--bpy-python PATH] [--pyrender-python PATH]
    python tools/bench/peers.py pictures --models DIR --out FOLDER [--poses 2] [--limit 2] [--bpy-python PATH] ...

Both are optional: `check` says where they were found, `pictures` writes one PNG a model and program to look at. A peer
may live in an interpreter of its own, since bpy wants one exact version of Python:

    python3.11 -m venv peers && peers/bin/pip install bpy pyrender    (bpy takes 350 MB)

mmdgen's process packs what is drawn: mesh, textures as PNG and, for every picture, vertices posed with numpy. The peer
sets the vertices, draws 256 x 256 pixels with the same orthographic camera and leaves the picture in memory. Its clock
covers that alone: no deformation, no loading, no compression and no file.

Anti-aliasing, as near to mmdgen's 2 x 2 samples as each one has it: Workbench 5 samples (it has 0, 5, 8, 11, 16, 32),
pyrender 4 of multisampling, which smooths edges only and not textures. Workbench draws textures with flat light
(`light = FLAT`), pyrender with RenderFlags.FLAT: the cheapest that shows the textures. Neither culls back faces, since
both could only cull all or none. Neither draws outlines.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
NAMES = ("bpy Workbench", "pyrender")
MODULES = {"bpy Workbench": "bpy", "pyrender": "pyrender"}
SAMPLES = {"bpy Workbench": "5 samples (Workbench's fewest above 1)", "pyrender": "multisampling, 4"}
TIME_LIMIT_S = 600.0


@dataclass(frozen=True)
class Peer:
    """A peer that can be measured: the interpreter that has it and its version; or why there is none."""

    name: str
    python: str
    version: str
    problem: str = ""


def find(name: str, python: str | None = None) -> Peer:
    """Return where a peer is: in the interpreter `python`, or in this one."""
    if python is None and importlib.util.find_spec(MODULES[name]) is None:
        return Peer(name, sys.executable, "", f"{MODULES[name]} is not installed for {sys.executable}")
    interpreter = python or sys.executable
    code = (
        f"import importlib.metadata, {MODULES[name]}; print('version', importlib.metadata.version('{MODULES[name]}'))"
    )
    try:
        done = subprocess.run(
            [interpreter, "-c", code], capture_output=True, text=True, timeout=120, env=_environment(1)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Peer(name, interpreter, "", f"{interpreter}: {error}")
    versions = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("version ")]
    if done.returncode or not versions:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Peer(name, interpreter, "", f"{MODULES[name]} cannot be imported by {interpreter}: {last}")
    return Peer(name, interpreter, versions[-1])


def _environment(processes: int) -> dict[str, str]:
    """One process has the driver draw on all cores; several draw on one each."""
    threads = str(os.cpu_count() or 1) if processes == 1 else "0"
    return {**os.environ, "LP_NUM_THREADS": threads, "PYOPENGL_PLATFORM": "egl"}


# What is drawn: packed by mmdgen's process


def pack(models: Path, plan: Any, out: Path, poses: int, limit: int) -> list[Path]:
    """Write the first `limit` models of a plan with `poses` poses each below `out`; return their files.

    Each is an .npz: positions f32 [poses, V, 3] MU as mmdgen has them, faces i32 [F, 3], uv f32 [V, 2], and for every
    material the first face, the number of faces, the texture (-1: none) and the alpha; frame is centre x, centre y,
    height in MU. Textures lie beside it as PNG.
    """
    from naive import posed_vertices
    from PIL import Image

    from mmdgen.generate.shard import view_of
    from mmdgen.model.load import load_model
    from mmdgen.model.morphs import flatten_terms
    from mmdgen.model.textures import decode_texture
    from mmdgen.pose.binding import PoseBinding
    from mmdgen.pose.sampling import sample_poses
    from mmdgen.pose.vocabulary import THA1

    files = []
    for number, entry in enumerate(plan.models[:limit]):
        model = load_model(models / entry.path)
        binding = PoseBinding(THA1, entry.neck, entry.head, entry.terms, entry.center_x)
        flat = {name: flatten_terms(model, terms, binding.center_x) for name, terms in binding.terms.items()}
        vectors = sample_poses(THA1, plan.options.seed, entry.id, 0, poses)
        view = view_of(plan, entry)
        textures = {}
        for index in sorted({material.texture for material in model.materials} - {-1}):
            if model.textures[index].path is not None:
                textures[index] = f"{number}-{index}.png"
                Image.fromarray(decode_texture(model.textures[index])).save(out / textures[index], compress_level=1)
        file = out / f"{number}.npz"
        np.savez(
            file,
            positions=np.stack([posed_vertices(model, binding, flat, pose)[0] for pose in vectors]),
            faces=model.face.astype(np.int32),
            uv=model.uv.astype(np.float32),
            materials=np.array(
                [
                    (material.first_face, material.face_count, material.texture if material.texture in textures else -1)
                    for material in model.materials
                ],
                np.int64,
            ),
            alpha=np.array([material.diffuse[3] for material in model.materials], np.float32),
            frame=np.array([view.center_x, view.center_y, view.height, view.size]),
            textures=json.dumps({str(index): name for index, name in textures.items()}),
        )
        files.append(file)
    return files


class Packed:
    """A packed model, as the peers' processes read it: they need nothing but numpy."""

    def __init__(self, file: Path) -> None:
        data = np.load(file)
        self.positions, self.faces, self.uv = data["positions"], data["faces"], data["uv"]
        self.alpha = data["alpha"]
        self.center_x, self.center_y, self.height, size = data["frame"].tolist()
        self.size = int(size)
        names = {int(index): file.parent / name for index, name in json.loads(str(data["textures"])).items()}
        # first face, number of faces, texture or None; those that are invisible or empty are left out
        self.materials = [
            (int(first), int(count), names.get(int(texture)))
            for (first, count, texture), alpha in zip(data["materials"], self.alpha, strict=True)
            if count and alpha > 0
        ]
        low, high = self.positions.min(axis=(0, 1)), self.positions.max(axis=(0, 1))
        self.near, self.far = float(low[2]) - 1, float(high[2]) + 1


# The peers: each function runs in the peer's interpreter


Times = list[tuple[float, float]]  # wall and processor seconds of each picture, the latter of all threads


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _now()
    return wall - start[0], cpu - start[1]


def draw_with_bpy(packed: Packed, picture: Path | None) -> Times:
    """Draw every pose with Blender's Workbench; return the seconds that each took."""
    bpy: Any = importlib.import_module("bpy")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    mesh = bpy.data.meshes.new("model")
    kept = np.concatenate([packed.faces[first : first + count] for first, count, _ in packed.materials])
    # MMD's y up, z away from the viewer -> Blender's z up, y away; that mirrors space, so faces are turned round.
    corner = np.ascontiguousarray(kept[:, ::-1]).reshape(-1).astype(np.int32)
    points = np.ascontiguousarray(packed.positions[:, :, [0, 2, 1]])
    mesh.vertices.add(points.shape[1])
    mesh.vertices.foreach_set("co", points[0].reshape(-1))
    mesh.loops.add(len(corner))
    mesh.loops.foreach_set("vertex_index", corner)
    mesh.polygons.add(len(kept))
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corner), 3, dtype=np.int32))
    slot = np.repeat(np.arange(len(packed.materials)), [count for _, count, _ in packed.materials])
    mesh.polygons.foreach_set("material_index", slot.astype(np.int32))
    layer = mesh.uv_layers.new(name="uv")
    uv = packed.uv[corner] * [1, -1] + [0, 1]  # v upwards
    layer.data.foreach_set("uv", np.ascontiguousarray(uv, np.float32).reshape(-1))
    for number, (_, _, texture) in enumerate(packed.materials):
        material = bpy.data.materials.new(f"material {number}")
        material.use_nodes = True
        if texture is not None:
            node = material.node_tree.nodes.new("ShaderNodeTexImage")
            node.image = bpy.data.images.load(str(texture), check_existing=True)
            material.node_tree.nodes.active = node  # what Workbench shows
        mesh.materials.append(material)
    mesh.update(calc_edges=True)
    mesh.validate()
    scene.collection.objects.link(bpy.data.objects.new("model", mesh))
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.type, camera.data.ortho_scale = "ORTHO", packed.height
    camera.data.clip_start, camera.data.clip_end = 0.1, packed.far - packed.near + 10
    camera.location = (packed.center_x, packed.near - 5, packed.center_y)
    camera.rotation_euler = (np.pi / 2, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera = camera
    render, shading = scene.render, scene.display.shading
    render.engine = "BLENDER_WORKBENCH"
    render.resolution_x = render.resolution_y = packed.size
    render.resolution_percentage = 100
    render.film_transparent = True
    scene.display.render_aa = "5"
    scene.view_settings.view_transform = "Standard"
    shading.light, shading.color_type = "FLAT", "TEXTURE"
    shading.show_backface_culling = shading.show_cavity = shading.show_shadows = shading.show_object_outline = False
    seconds: Times = []
    for number in range(-1, len(points)):  # the first picture compiles shaders and uploads textures
        start = _now()
        mesh.vertices.foreach_set("co", points[max(number, 0)].reshape(-1))
        mesh.update()
        bpy.ops.render.render()
        seconds.append(_since(start))
    if picture is not None:
        render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
        bpy.data.images["Render Result"].save_render(str(picture))
    return seconds[1:]


def draw_with_pyrender(packed: Packed, picture: Path | None) -> Times:
    """Draw every pose with pyrender; return the seconds that each took."""
    from PIL import Image

    pyrender: Any = importlib.import_module("pyrender")
    textures = {
        path: pyrender.Texture(source=np.asarray(Image.open(path).convert("RGBA")), source_channels="RGBA")
        for path in {texture for _, _, texture in packed.materials if texture is not None}
    }
    parts = []
    for first, count, texture in packed.materials:
        used, index = np.unique(packed.faces[first : first + count].reshape(-1), return_inverse=True)
        material = pyrender.MetallicRoughnessMaterial(
            baseColorTexture=textures.get(texture), alphaMode="BLEND", doubleSided=True, metallicFactor=0.0
        )
        uv = np.ascontiguousarray(packed.uv[used] * [1, -1] + [0, 1], np.float32)
        parts.append((used, np.ascontiguousarray(index.reshape(-1, 3)[:, ::-1]), uv, material))
    scene = pyrender.Scene(bg_color=[0, 0, 0, 0], ambient_light=[1.0, 1.0, 1.0])
    half = packed.height / 2
    camera = pyrender.OrthographicCamera(half, half, znear=0.1, zfar=packed.far - packed.near + 10)
    place = np.eye(4)
    place[:3, 3] = packed.center_x, packed.center_y, -(packed.near - 5)
    scene.add(camera, pose=place)
    renderer = pyrender.OffscreenRenderer(packed.size, packed.size)
    flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.RGBA | pyrender.RenderFlags.SKIP_CULL_FACES
    seconds: Times = []
    node, color = None, None
    for number in range(-1, len(packed.positions)):
        points = packed.positions[max(number, 0)] * np.array([1, 1, -1], np.float32)  # OpenGL's z towards the viewer
        start = _now()
        if node is not None:
            scene.remove_node(node)
        primitives = [
            pyrender.Primitive(positions=points[used], indices=faces, texcoord_0=uv, material=material, mode=4)
            for used, faces, uv, material in parts
        ]
        node = scene.add(pyrender.Mesh(primitives))
        color, _ = renderer.render(scene, flags=flags)
        seconds.append(_since(start))
    if picture is not None and color is not None:
        Image.fromarray(color).save(picture)
    renderer.delete()
    return seconds[1:]


DRAW = {"bpy Workbench": draw_with_bpy, "pyrender": draw_with_pyrender}


def draw_part(name: str, files: list[Path], pictures: Path | None) -> None:
    """Draw packed models with a peer in this interpreter; print the number of pictures and the seconds they took."""
    taken: Times = []
    for file in files:
        picture = pictures / f"{file.stem}-{MODULES[name]}.png" if pictures else None
        taken += DRAW[name](Packed(file), picture)
    wall, cpu = (sum(times) for times in zip(*taken, strict=True))
    print("\nresult " + json.dumps({"images": len(taken), "wall": wall, "cpu": cpu}), flush=True)


# The parent's side


def rate(peer: Peer, files: list[Path], processes: int = 1, pictures: Path | None = None) -> tuple[float, float]:
    """Return images/s, and processor ms an image, of a peer in `processes` processes, each with a share of the models.

    Loading, and the first picture of each model, are not counted. Raises RuntimeError with the peer's last words.
    """
    shares = [files[number::processes] for number in range(processes)]
    running = []
    for share in (share for share in shares if share):
        command = [
            peer.python,
            str(HERE / "peers.py"),
            "draw",
            peer.name,
            *(["--pictures", str(pictures)] if pictures else []),
        ]
        running.append(
            subprocess.Popen(
                [*command, *map(str, share)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=_environment(processes),
            )
        )
    total, cpu, images = 0.0, 0.0, 0
    for process in running:
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            for other in running:
                other.kill()
            raise RuntimeError(f"{peer.name} took more than {TIME_LIMIT_S:.0f} s") from None
        lines = [line for line in output.splitlines() if line.startswith("result ")]
        if process.returncode or not lines:
            raise RuntimeError(f"{peer.name} failed ({process.returncode}): {' / '.join(output.splitlines()[-3:])}")
        found = json.loads(lines[-1][7:])
        total += found["images"] / found["wall"]
        cpu, images = cpu + found["cpu"], images + found["images"]
    return total, 1e3 * cpu / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "pictures"):
        command = commands.add_parser(name)
        command.add_argument("--bpy-python", help="the interpreter that has bpy")
        command.add_argument("--pyrender-python", help="the interpreter that has pyrender")
        if name == "pictures":
            command.add_argument("--models", type=Path, required=True)
            command.add_argument("--out", type=Path, required=True)
            command.add_argument("--poses", type=int, default=2)
            command.add_argument("--limit", type=int, default=2)
    draw = commands.add_parser("draw", help=argparse.SUPPRESS)
    draw.add_argument("name", choices=NAMES)
    draw.add_argument("files", type=Path, nargs="+")
    draw.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "draw":
        draw_part(arguments.name, arguments.files, arguments.pictures)
        return
    found = [find(NAMES[0], arguments.bpy_python), find(NAMES[1], arguments.pyrender_python)]
    for peer in found:
        print(f"{peer.name}: {peer.problem or f'{peer.version}, {peer.python}'}")
    if arguments.command == "check":
        return
    sys.path.insert(0, str(HERE.parents[1]))
    from common import usable

    from mmdgen.generate.options import RenderOptions
    from mmdgen.generate.plan import make_plan

    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = make_plan(RenderOptions(poses={"train": 100}), usable(arguments.models))
    with tempfile.TemporaryDirectory(prefix="mmdgen-peers-") as folder:
        files = pack(arguments.models, plan, Path(folder), arguments.poses, arguments.limit)
        for peer in found:
            if not peer.problem:
                speed, cpu = rate(peer, files, 1, arguments.out)
                print(f"{peer.name}: {speed:.2f} images/s, {cpu:.0f} ms of processor each, see {arguments.out}")


if __name__ == "__main__":
    main()
