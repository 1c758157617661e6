"""What must hold for any bytes at all: the checks that the fuzzer makes of every mutated file."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fuzz_seed import IMAGE_KINDS, MODEL_KINDS
from fuzz_seeds import reader_and_writer

from mmdgen import rng
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.headtextures import require_head_textures
from mmdgen.errors import AnnotationError, FormatError, MmdgenError, ModelError
from mmdgen.formats.vmd.records import VmdFile
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import Model, MorphKind, MorphTerm, Skeleton
from mmdgen.model.textures import MAX_PIXELS, MAX_SIDE, decode_image
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.keyframes import tracks_of
from mmdgen.pose.rig import Frame, build_rig
from mmdgen.pose.skinning import skin
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import Prepared, prepare_model
from mmdgen.render.view import MMD, PHONG, View

NOWHERE = Path("fuzz-no-such-folder") / "model"  # beside which no texture is found
POSITION_LIMIT = 1e6 + 1  # MU, as model.skeleton promises
RIG_EVERY, ANNOTATE_EVERY = 2, 3  # models that a rig is built of, and that are annotated: one in so many
MOTION_EVERY = 4
MESSAGE_LIMIT = 4000  # characters of an error: a message never repeats a file

# What a file of so many bytes may take, beside what the process holds already (see `allowance`).
BASE_BYTES, BYTES_PER_BYTE, BYTES_PER_PIXEL = 16 << 20, 200, 20
# The most pixels that a byte of each format can stand for: DEFLATE gives 1032 bytes for one (8 pixels of one bit each);
# a JPEG block of 64 pixels takes at least a bit of Huffman code (arithmetic coding less); LZW's longest string has 4096
# pixels in 12 bits; runs of TGA have 128, of BMP 255 pixels in two bytes; a DXT1 block has 16 in 8 bytes; a line of fax
# that is as the one before takes one bit. WebP has no bound: one colour takes the same few bytes at any size.
PIXELS_PER_BYTE = {
    "png": 8256,
    "jpeg": 4096,
    "gif": 2731,
    "bmp": 128,
    "tga": 128,
    "dds": 2,
    "tiff": 8 * MAX_SIDE,
    "webp": MAX_PIXELS,
}


class FindingError(Exception):
    """Something that must not happen. `code` sorts findings of one cause together."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)

    def __reduce__(self):
        return (type(self), (self.code, str(self)))


# -- errors ------------------------------------------------------------------------------------------------------------


def check_error(error: MmdgenError, kind: type[MmdgenError] | tuple[type[MmdgenError], ...], size: int) -> str:
    """The reason in a few letters. FindingError where `error` is not as errors must be."""
    what = f"{type(error).__name__}: {error}"
    if not isinstance(error, kind):
        raise FindingError("wrong_error", what)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "out of memory" in str(cause).lower():
            raise FindingError("allocation", f"out of memory behind {what}")
        if isinstance(cause, RecursionError):
            raise FindingError("recursion", what)
        cause = cause.__cause__ or cause.__context__
    try:
        what.encode("utf-8")
    except UnicodeEncodeError:
        raise FindingError("unprintable_error", repr(what)) from None
    if len(what) > MESSAGE_LIMIT or re.search("[\\x00-\\x1f\\x7f-\\x9f]", what):
        raise FindingError("unreadable_error", f"{len(what)} characters: {what[:500]!r}")
    if isinstance(error, FormatError):
        if not 0 <= error.offset <= size:
            raise FindingError("error_offset", f"offset {error.offset} of {size} bytes: {what}")
        return "FormatError"
    return f"{type(error).__name__} {getattr(error, 'code', '')}"


# -- models ------------------------------------------------------------------------------------------------------------


def problems(model: Model) -> Iterator[str]:
    """What `Model` promises and `model` does not keep."""
    vertices, faces, bones = len(model.position), len(model.face), len(model.skeleton.name)
    widths = {"position": 3, "normal": 3, "uv": 2, "edge_scale": 0, **({"uv1": 4} if model.uv1 is not None else {})}
    for name, width in widths.items():
        array: np.ndarray = getattr(model, name)
        if array.dtype != np.float32 or array.shape != ((vertices, width) if width else (vertices,)):
            yield f"{name} is {array.dtype} {array.shape}"
        elif not np.isfinite(array).all():
            yield f"{name} is not finite"
    with np.errstate(all="ignore"):
        if vertices and not np.abs(model.position).max() <= POSITION_LIMIT:
            yield "position is beyond the limit"
        length = np.sqrt((model.normal.astype(np.float64) ** 2).sum(axis=1))
        if vertices and not np.abs(length - 1).max() < 2e-3:
            yield f"normals have lengths up to {length.max()} from {length.min()}"
        if vertices and not model.edge_scale.min() >= 0:
            yield "edge_scale is negative"
        total = model.bone_weight.astype(np.float64).sum(axis=1)
    if vertices and not (np.abs(total - 1).max() < 1e-4 and model.bone_weight.min() >= 0):
        yield f"weights: sums {total.min()} to {total.max()}, lowest {model.bone_weight.min()}"
    for name, array, low, limit in (
        ("bone_index", model.bone_index, 0, bones),
        ("face", model.face, 0, vertices),
        ("sdef.vertex", model.sdef.vertex, 0, vertices),
    ):
        yield from _range(name, array, low, limit)
    for name in ("c", "r0", "r1"):
        array = getattr(model.sdef, name)
        if array.shape != (len(model.sdef.vertex), 3) or not np.isfinite(array).all():
            yield f"sdef.{name}"
    yield from _material_problems(model, faces)
    yield from skeleton_problems(model.skeleton)
    yield from _morph_problems(model)
    texts = [model.name, model.name_en, model.comment, *model.skeleton.name, *model.skeleton.name_en]
    texts += [text for item in (*model.materials, *model.morphs) for text in (item.name, item.name_en)]
    texts += [texture.name for texture in model.textures]
    texts += [f"{item.code} {item.section} {item.message}" for item in model.diagnostics]
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        yield f"a text that cannot be printed: {error.object[max(error.start - 40, 0) : error.end + 40]!r}"
    for item in model.diagnostics:
        shown = len(item.message) <= MESSAGE_LIMIT and not re.search("[\\x00-\\x1f\\x7f-\\x9f]", item.message)
        if not re.fullmatch("[a-z][a-z0-9_]+", item.code) or not shown:
            yield f"diagnostic {item.code} of {len(item.message)} characters"


def _range(name: str, array: np.ndarray, low: int, limit: int) -> Iterator[str]:
    if array.dtype != np.int32:
        yield f"{name} is {array.dtype}"
    if array.size and not (array.min() >= low and array.max() < limit):
        yield f"{name} is in [{array.min()}, {array.max()}], not in [{low}, {limit})"


def _material_problems(model: Model, faces: int) -> Iterator[str]:
    first = 0
    for number, item in enumerate(model.materials):
        if item.first_face != first or item.face_count < 0:
            yield f"material {number} has faces {item.first_face} + {item.face_count}, expected from {first}"
        first = item.first_face + item.face_count
        numbers = (*item.diffuse, *item.specular, item.specular_power, *item.ambient, *item.edge_color, item.edge_size)
        if not np.isfinite(numbers).all():
            yield f"material {number} has {numbers}"
        for index in (item.texture, item.sphere_texture, item.toon_texture):
            if not -1 <= index < len(model.textures):
                yield f"material {number} has texture {index} of {len(model.textures)}"
        if item.sphere_mode not in (0, 1, 2, 3) or not -1 <= item.toon_shared <= 9:
            yield f"material {number} has sphere mode {item.sphere_mode}, toon {item.toon_shared}"
    if first != faces or not faces:
        yield f"materials have {first} faces of {faces}"


def skeleton_problems(skeleton: Skeleton) -> Iterator[str]:
    """What `Skeleton` promises and `skeleton` does not keep."""
    count = len(skeleton.name)
    for name in ("parent", "append_source"):
        yield from _range(name, getattr(skeleton, name), -1, count)
    if skeleton.rest.shape != (count, 3) or not np.isfinite(skeleton.rest).all():
        yield "rest"
    if not np.isfinite(skeleton.append_ratio).all():
        yield "append_ratio"
    place = np.full(count + 1, -1)
    place[skeleton.order] = np.arange(count)
    if sorted(skeleton.order.tolist()) != list(range(count)):
        yield "order is no permutation"
    else:
        for name in ("parent", "append_source"):
            needed = getattr(skeleton, name).clip(-1, count - 1)
            late = (needed >= 0) & (place[needed] >= place[:count])
            if late.any():
                yield f"{name} of bone {np.argmax(late)} comes after it: a cycle, or a wrong order"


_WIDTHS = {MorphKind.VERTEX: (3,), MorphKind.UV: (4,), MorphKind.GROUP: (), MorphKind.BONE: (7,)}


def _morph_problems(model: Model) -> Iterator[str]:
    limits = {
        MorphKind.VERTEX: len(model.position),
        MorphKind.UV: len(model.position),
        MorphKind.GROUP: len(model.morphs),
        MorphKind.BONE: len(model.skeleton.name),
        MorphKind.MATERIAL: len(model.materials),
        MorphKind.OTHER: 0,
    }
    for number, morph in enumerate(model.morphs):
        where = f"morph {number} ({morph.kind})"
        yield from _range(where, morph.index, -1 if morph.kind is MorphKind.MATERIAL else 0, limits[morph.kind])
        if len(morph.index) != len(morph.offset):
            yield f"{where} has {len(morph.index)} indices and {len(morph.offset)} offsets"
        if morph.kind in _WIDTHS:
            if len(morph.index) and morph.offset.shape[1:] != _WIDTHS[morph.kind]:
                yield f"{where} has offsets {morph.offset.shape}"
            if not np.isfinite(morph.offset).all():
                yield f"{where} is not finite"
        elif morph.kind is MorphKind.MATERIAL and len(morph.index):
            for name in morph.offset.dtype.names or ():
                if not np.isfinite(morph.offset[name]).all():
                    yield f"{where} {name} is not finite"
        if morph.kind is MorphKind.GROUP and any(model.morphs[i].kind is MorphKind.GROUP for i in morph.index.tolist()):
            yield f"{where} holds groups"
        if morph.kind is MorphKind.BONE and len(morph.index):
            length = np.linalg.norm(morph.offset[:, 3:].astype(np.float64), axis=1)
            if np.abs(length - 1).max() > 1e-3:
                yield f"{where} has rotations of length {length.max()}"


def check_file(kind: str, data: bytes, number: int = 0) -> str:
    """Read, write and compare a PMX, PMD, VMD or VPD file; sample a motion."""
    read, write = reader_and_writer(kind)
    try:
        file = read(data, "fuzz")
    except MmdgenError as error:
        return check_error(error, FormatError, len(data))
    written = write(file)
    if written != data:
        at = next((i for i, (a, b) in enumerate(zip(written, data, strict=False)) if a != b), -1)
        raise FindingError("round_trip", f"{len(data)} bytes became {len(written)}, the first difference is at {at}")
    if kind == "vmd" and number % MOTION_EVERY == 0:
        _check_motion(file)
    return "accepted"


def _check_motion(file: VmdFile) -> None:
    tracks = tracks_of(file)
    frames = np.array([0.0, 1.5, tracks.last_frame - 0.5, tracks.last_frame + 1e9])
    for track in tracks.bones.values():
        position, rotation = track.sample(frames)
        if not np.isfinite(position).all() or np.abs(np.linalg.norm(rotation, axis=-1) - 1).max() > 1e-6:
            raise FindingError("motion", f"positions {position.tolist()}, rotations {rotation.tolist()}")
    for track in tracks.morphs.values():
        if not np.isfinite(track.sample(frames)).all():
            raise FindingError("motion", f"weights {track.sample(frames).tolist()}")


def check_model(kind: str, data: bytes, number: int) -> str:
    """Everything about a PMX or PMD file: the file, the `Model`, and for some its rig and its annotation."""
    read = check_file(kind, data)
    try:
        model = model_from_bytes(data, NOWHERE)
    except MmdgenError as error:
        expected = ModelError if read == "accepted" else FormatError
        return check_error(error, expected, len(data))
    if read != "accepted":
        raise FindingError("inconsistent", f"the reader says {read}, but there is a model")
    for problem in problems(model):
        raise FindingError("promise", problem)
    if number % RIG_EVERY == 0:
        _check_rig(model, number, len(data))
    if number % ANNOTATE_EVERY == 0:
        try:
            annotated(model)
        except MmdgenError as error:
            check_error(error, (AnnotationError, ModelError), len(data))
    return "accepted"


def annotated(model: Model) -> Prepared:
    """`model` as a dataset would draw it: annotated, with the textures of its head, reduced to its view."""
    annotation = annotate(model)
    bounds = annotation.bounds
    if not (np.isfinite([bounds.chin_y, bounds.top_y, bounds.center_x]).all() and bounds.chin_y < bounds.top_y):
        raise FindingError("annotation", f"{bounds}")
    with contextlib.suppress(ModelError):  # what is missing is drawn white, if one insists
        require_head_textures(model, annotation)
    binding = PoseBinding(THA1, annotation.neck, annotation.head, annotation.parameter_terms(), bounds.center_x)
    return prepare_model(model, binding, View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=64))


def _drawn_binding(model: Model, number: int) -> PoseBinding:
    """Any bones as neck and head, any morphs as eyes and mouth."""
    random = rng.generator(number, "tests", "fuzz", "rig")
    neck, head = random.integers(0, len(model.skeleton.name), 2).tolist()
    names = [parameter.name for parameter in THA1.parameters if parameter.kind == "morph"]
    terms: dict[str, tuple[MorphTerm, ...]] = dict.fromkeys(names, ())
    if model.morphs:
        for name, side in zip(names, ("both", "left", "right"), strict=True):
            chosen = random.integers(0, len(model.morphs), 2).tolist()
            terms[name] = tuple(MorphTerm(morph, float(random.uniform(0.2, 1)), side) for morph in chosen)
    return PoseBinding(THA1, neck, head, terms, float(np.median(model.position[:, 0])))


def _check_rig(model: Model, number: int, size: int) -> None:
    """Build a rig on drawn bones and morphs and pose it, as for drawing and vertex by vertex."""
    binding = _drawn_binding(model, number)
    random = rng.generator(number, "tests", "fuzz", "poses")
    x, y = binding.center_x, float(np.median(model.position[:, 1]))
    try:
        rig = build_rig(model, binding, Frame(x - 2, x + 2, y - 2, y + 2, 0.1))
    except MmdgenError as error:
        check_error(error, ModelError, size)
        return
    poses = random.uniform(-1, 1, (3, len(THA1.parameters))).astype(np.float32)
    rotation, translation = rig.evaluate(poses)
    for name, array in (("rotation", rotation), ("translation", translation), ("weights", rig.morph_weights(poses))):
        if not np.isfinite(array).all():
            raise FindingError("rig", f"{name} is not finite")
    if rotation.size and np.abs(np.linalg.norm(rotation, axis=-1) - 1).max() > 1e-3:
        raise FindingError("rig", "a rotation is no unit quaternion")
    for name in ("group_weight", "morph_offset", "sdef"):
        if not np.isfinite(getattr(rig, name)).all():
            raise FindingError("rig", f"{name} is not finite")
    if rig.index.size and rig.index.max() >= len(rig.vertex):
        raise FindingError("rig", "an index is out of range")
    if number % (4 * RIG_EVERY) == 0 and not np.isfinite(skin(model, binding, poses[0])).all():
        raise FindingError("rig", "a posed vertex is not finite")


# -- textures ----------------------------------------------------------------------------------------------------------


def claimed_size(data: bytes) -> tuple[str, int]:
    """The format of an image by its first bytes, and how many pixels its header claims (0 where that is not clear)."""
    try:
        if data[:4] == b"\x89PNG":
            width, height = struct.unpack_from(">II", data, data.index(b"IHDR") + 4)
            return "png", width * height
        if data[:2] == b"BM":
            if struct.unpack_from("<I", data, 14)[0] == 12:
                width, height = struct.unpack_from("<HH", data, 18)
            else:
                width, height = struct.unpack_from("<ii", data, 18)
            return "bmp", width * abs(height)
        if data[:4] == b"DDS ":
            height, width = struct.unpack_from("<II", data, 12)
            return "dds", width * height
        if data[:4] == b"GIF8":
            width, height = struct.unpack_from("<HH", data, 6)
            return "gif", width * height
        if data[:3] == b"\xff\xd8\xff":
            frames = [match.start() for match in re.finditer(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]", data)]
            sizes = [struct.unpack_from(">HH", data, at + 5) for at in frames if at + 9 <= len(data)]
            return "jpeg", max((width * height for height, width in sizes), default=0)
        if data[:4] == b"RIFF":
            return "webp", _webp_pixels(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return "tiff", _tiff_pixels(data)
        width, height = struct.unpack_from("<HH", data, 12)
        return "tga", width * height
    except (struct.error, ValueError):
        return "png", 0


def _webp_pixels(data: bytes) -> int:
    sizes = [0]
    for match in re.finditer(rb"VP8X|VP8L|VP8 |ANMF", data):
        at = match.end() + 4
        if match[0] == b"VP8X" and at + 10 <= len(data):
            width, height = (int.from_bytes(data[at + k : at + k + 3], "little") + 1 for k in (4, 7))
        elif match[0] == b"VP8L" and at + 5 <= len(data):
            bits = int.from_bytes(data[at + 1 : at + 5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif match[0] == b"VP8 " and at + 10 <= len(data):
            width, height = (value & 0x3FFF for value in struct.unpack_from("<2H", data, at + 6))
        else:
            continue
        sizes.append(width * height)
    return max(sizes)


def _tiff_pixels(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    sides = {256: 0, 257: 0}
    for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in sides:
            sides[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
    return sides[256] * sides[257]


def check_texture(data: bytes) -> str:
    """Decode an image."""
    try:
        image = decode_image(data, "fuzz")
    except MmdgenError as error:
        return check_error(error, ModelError, len(data))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4 or not image.size:
        raise FindingError("promise", f"an image of {image.dtype} {image.shape}")
    if max(image.shape) > MAX_SIDE or image.size > 4 * MAX_PIXELS:
        raise FindingError("promise", f"an image of {image.shape}")
    return "accepted"


# -- targets -----------------------------------------------------------------------------------------------------------


def allowance(kind: str, data: bytes) -> int:
    """How many bytes a check of `data` may take beside what the process holds: a small multiple of the file.

    Of an image, also what its pixels need: as many as its header claims, but no more than the file can hold.
    """
    bytes_allowed = BASE_BYTES + BYTES_PER_BYTE * len(data)
    if kind in IMAGE_KINDS:
        found, pixels = claimed_size(data)
        pixels = max(0, min(pixels, PIXELS_PER_BYTE[found] * len(data), MAX_PIXELS))
        bytes_allowed += BYTES_PER_PIXEL * pixels
    return bytes_allowed


def targets() -> dict[str, Callable[[bytes, int], str]]:
    """What is done with a file of each kind: bytes and the case's number -> ``accepted`` or the error in a few letters.

    FindingError, or any other exception but ours, is a finding.
    """
    known: dict[str, Callable[[bytes, int], str]] = {}
    for kind in MODEL_KINDS:
        if kind in ("pmx", "pmd"):
            known[kind] = lambda data, number, kind=kind: check_model(kind, data, number)
        else:
            known[kind] = lambda data, number, kind=kind: check_file(kind, data, number)
    for kind in IMAGE_KINDS:
        known[kind] = lambda data, number: check_texture(data)
    return known


def unlimited(kind: str, data: bytes) -> int:
    """The allowance where memory is not what is looked at: drivers of software renderers map what they like."""
    return 1 << 40


def drawings() -> dict[str, Callable[[bytes, int], str]]:
    """Targets that draw a small picture of every model that can be drawn, on this process's renderer."""
    from mmdgen.render.renderer import Renderer

    renderer = Renderer()

    def draw(data: bytes, number: int) -> str:
        try:
            model = model_from_bytes(data, NOWHERE)
            low, high = (np.quantile(model.position[:, 1].astype(np.float64), q) for q in (0.3, 0.9))
            binding = _drawn_binding(model, number)
            shading = (PHONG, MMD)[number % 2]
            view = View.of_head(float(low), float(high) + 0.1, binding.center_x, size=64, shading=shading)
            prepared = prepare_model(model, binding, view)
        except MmdgenError as error:
            return check_error(error, (FormatError, ModelError), len(data))
        random = rng.generator(number, "tests", "fuzz", "poses")
        poses = random.uniform(-1, 1, (2, len(THA1.parameters))).astype(np.float32)
        with renderer.scene(prepared) as scene:
            images = [scene.rest(), *(np.asarray(image) for image in scene.posed(poses))]
        for image in images:
            if image.shape != (64, 64, 4) or image[image[..., 3] == 0][:, :3].any():
                raise FindingError("picture", f"{image.shape}, or colour where nothing is")
        return "accepted"

    return {"pmx": draw, "pmd": draw}
