"""The bones that a head pose turns, and how much of every vertex follows the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate import names
from mmdgen.errors import AnnotationError
from mmdgen.geometry import quaternion_about_axis
from mmdgen.model.records import Model, MorphKind, Skeleton
from mmdgen.pose.bones import BoneMotion, evaluate_groups, rigid_groups
from mmdgen.pose.rig import MAX_GROUPS

# A character's head carries at least this many vertices; a prop with a bone called "head" does not.
FEWEST_HEAD_VERTICES = 40
# Finding what a bone carries takes a walk over all bones: of more bones called heads, those that hold most vertices.
MOST_HEADS = 16


@dataclass(frozen=True, slots=True, eq=False)
class HeadBones:
    """Bone indices. `left_eye` and `right_eye` are by position (left is x > the head's), -1 where there is none.

    `share` f32 [B] is the part of the head's rotation that each bone takes over.
    """

    neck: int
    head: int
    left_eye: int
    right_eye: int
    notes: tuple[str, ...]
    share: np.ndarray


def find_bones(model: Model) -> HeadBones:
    """Return the bones of `model` that pose a head.

    Names propose, the skeleton and the weights decide: the head is the named bone that moves the most vertices (where
    none is called a head, the one that carries the lids), the neck the highest named ancestor of it below the chest (so
    that of 首, 首1, 首2 the root of the chain turns). Where no bone is called a neck, the lowest bone between chest and
    head stands in, or the head's parent, or else the head itself.

    Raises `AnnotationError`: ``no_vertices``, ``no_head_bone``, ``not_a_character``.
    """
    if len(model.position) == 0 or len(model.face) == 0:
        raise AnnotationError("no_vertices", f"{model.path}: has no vertices or no faces")
    skeleton = model.skeleton
    keys = [names.key(name) for name in skeleton.name]
    keys_en = [names.key(name) for name in skeleton.name_en]
    head, share = _head(model, keys, keys_en)
    neck, notes = _neck(skeleton, head, keys, keys_en)
    left, right = _eyes(skeleton, head, share, keys, keys_en)
    return HeadBones(neck, head, left, right, tuple(notes), share)


def vertex_share(model: Model, share: np.ndarray) -> np.ndarray:
    """Return f32 [V] in [0, 1]: how much each vertex turns with the head, from `HeadBones.share`."""
    return np.einsum("vk,vk->v", model.bone_weight, share[model.bone_index])


def bone_share(skeleton: Skeleton, head: int) -> np.ndarray:
    """Return f32 [B] in [0, 1]: the part of the rotation of bone `head` that each bone takes over.

    Followers by append (頭D and what hangs on it) count as what they follow, by their ratio. Where more follow than can
    be drawn, none is looked at: all that hangs on the head turns with it.
    """
    angle = 0.2
    groups = rigid_groups(skeleton, frozenset((head,)))
    if groups.count > MAX_GROUPS:
        share = np.zeros(len(skeleton.parent), np.float32)
        share[head] = 1.0
        for bone in skeleton.order.tolist():
            if bone != head and skeleton.parent[bone] >= 0:
                share[bone] = share[skeleton.parent[bone]]
        return share
    motion = BoneMotion(1, {head: quaternion_about_axis(1, np.array([angle]))}, {})
    rotation, _ = evaluate_groups(skeleton, groups, motion)
    turned = 2 * np.arctan2(rotation[0, :, 1], rotation[0, :, 3]) / angle
    return np.clip(turned, 0, 1)[groups.group_of_bone].astype(np.float32)


def _named(keys: list[str], keys_en: list[str], spellings: frozenset[str]) -> list[int]:
    """Bones called so; the name in the model's own language comes before the English one."""
    own = [i for i, key in enumerate(keys) if key in spellings]
    return own or [i for i, key in enumerate(keys_en) if key in spellings]


def _head(model: Model, keys: list[str], keys_en: list[str]) -> tuple[int, np.ndarray]:
    candidates = _named(keys, keys_en, names.HEAD_BONE)
    if not candidates:
        candidates = [i for i, name in enumerate(model.skeleton.name) if names.like_head(name)] or _under_lids(model)
    if not candidates:
        raise AnnotationError("no_head_bone", f"{model.path}: none of its {len(keys)} bones is called 頭 or head")
    if len(candidates) > MOST_HEADS:
        held = np.bincount(model.bone_index.ravel(), model.bone_weight.ravel(), len(keys))
        candidates = sorted(sorted(candidates, key=lambda i: (-held[i], i))[:MOST_HEADS])
    shares = {i: bone_share(model.skeleton, i) for i in candidates}
    moved = {i: int(np.count_nonzero(vertex_share(model, shares[i]) > 0.5)) for i in candidates}
    best = max(candidates, key=lambda i: (moved[i], -i))
    # 頭 itself is what motions turn; another spelling wins only where 頭 moves next to nothing.
    best = next((i for i in candidates if model.skeleton.name[i] == "頭" and moved[i] >= 0.5 * moved[best]), best)
    if moved[best] < FEWEST_HEAD_VERTICES:
        raise AnnotationError(
            "not_a_character", f"{model.path}: bone {model.skeleton.name[best]} moves only {moved[best]} vertices"
        )
    return best, shares[best]


def _under_lids(model: Model) -> list[int]:
    """The bone that carries the vertices of the morphs called a blink or wink, for skeletons with unreadable names."""
    carried = np.zeros(len(model.skeleton.name))
    for morph in model.morphs:
        if morph.kind is MorphKind.VERTEX and names.eye_class(names.parse(morph.name)) in ("blink", "wink"):
            moved = morph.index[np.abs(morph.offset[:, 1]) > 0]
            np.add.at(carried, model.bone_index[moved], model.bone_weight[moved])
    best = int(np.argmax(carried)) if len(carried) else 0
    return [best] if carried.sum() > 0 and carried[best] > 0.6 * carried.sum() else []


def _ancestors(skeleton: Skeleton, bone: int) -> list[int]:
    chain = []
    parent = int(skeleton.parent[bone])
    while parent >= 0:
        chain.append(parent)
        parent = int(skeleton.parent[parent])
    return chain


def _neck(skeleton: Skeleton, head: int, keys: list[str], keys_en: list[str]) -> tuple[int, list[str]]:
    chain = _ancestors(skeleton, head)
    below_chest = []
    for bone in chain:
        if keys[bone] in names.CHEST_BONE or keys_en[bone] in names.CHEST_BONE:
            break
        below_chest.append(bone)
    named = [b for b in below_chest if keys[b] in names.NECK_BONE] or [
        b for b in below_chest if keys_en[b] in names.NECK_BONE
    ]
    if named:
        return named[-1], []
    like = [b for b in below_chest if names.like_neck(skeleton.name[b])]
    if like:
        return like[-1], []
    # 首 may stand beside the chain where a rig drives the head by append; it is the neck if it carries the head anyway.
    for bone in _named(keys, keys_en, names.NECK_BONE):
        if bone != head and bone_share(skeleton, bone)[head] > 0.5:
            return bone, [f"the neck {skeleton.name[bone]} carries the head by append"]
    if below_chest and len(below_chest) < len(chain):
        bone = below_chest[-1]
        return bone, [f"no bone is called a neck: {skeleton.name[bone]} stands in"]
    if chain and skeleton.rest[chain[0], 1] < skeleton.rest[head, 1]:
        return chain[0], [f"no bone is called a neck: the head's parent {skeleton.name[chain[0]]} stands in"]
    return head, ["no bone is called a neck: the head bone stands in"]


def _eyes(skeleton: Skeleton, head: int, share: np.ndarray, keys: list[str], keys_en: list[str]) -> tuple[int, int]:
    """The eye bones by side of the head's x, whatever their names say; (-1, -1) unless there is one on each side."""
    x = float(skeleton.rest[head, 0])
    found = {}
    pairs = ((names.LEFT_EYE_BONE, "first"), (names.RIGHT_EYE_BONE, "second"))
    for spellings, slot in pairs:
        bones = [b for b in _named(keys, keys_en, spellings) if share[b] > 0.5]
        if bones:
            found[slot] = bones[0]
    if len(found) < 2:
        return -1, -1
    a, b = found["first"], found["second"]
    if skeleton.rest[a, 0] < skeleton.rest[b, 0]:
        a, b = b, a
    if not skeleton.rest[a, 0] > x - 1e-3 > skeleton.rest[b, 0] - 2e-3:
        return -1, -1
    return a, b
