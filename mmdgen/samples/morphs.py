"""Morphs: the basic movements of the mesh, written under the names and groupings that real models use.

The movements (``blink_left``, ``mouth_a``, ...) are the same in every character; which morphs hold them, how these are
called and which side a wink closes follows from the character's `Conventions`. The truth is noted on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.formats.pmx import records as pmx
from mmdgen.samples.conventions import Conventions

BROW, EYE, MOUTH, OTHER = 1, 2, 3, 4
Term = tuple[int, float, str]  # morph, weight, side
Moves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> vertex i64 [n], displacement f64 [n, 3] in MU

# Spelling -> basic movement -> (name, English name) of the morphs for the left and the right side.
Names = tuple[tuple[str, str], tuple[str, str]]
SPELLINGS: dict[str, dict[str, Names]] = {
    "standard": {
        "smile": (("ウィンク", "Wink"), ("ウィンク右", "Wink R")),
        "blink": (("ウィンク２", "Wink2"), ("ｳｨﾝｸ２右", "Wink2 R")),
    },
    "bracket": {
        "smile": (("ウインク(左)", "wink L"), ("ウインク(右)", "wink R")),
        "blink": (("ウインク２(左)", "wink2 L"), ("ウインク２(右)", "wink2 R")),
    },
    "half_width": {
        "smile": (("ｳｨﾝｸ", "Wink"), ("ｳｨﾝｸ右", "Wink R")),
        "blink": (("ｳｨﾝｸ2", "Wink2"), ("ｳｨﾝｸ2右", "Wink2 R")),
    },
    "explicit": {
        "smile": (("笑い左", "smile_L"), ("笑い右", "smile_R")),
        "blink": (("まばたき左", "blink_L"), ("まばたき右", "blink_R")),
    },
    "english": {
        "smile": (("wink_L", "wink_L"), ("wink_R", "wink_R")),
        "blink": (("blink_L", "blink_L"), ("blink_R", "blink_R")),
    },
}
SPELLINGS["reversed"] = SPELLINGS["standard"]

VOWELS = {"あ": "a", "い": "i", "う": "u", "え": "e", "お": "o"}


@dataclass(slots=True)
class MorphBook:
    """Collects morphs in file order and the truth about them."""

    moves: Moves
    habits: Conventions
    morphs: list[pmx.PmxMorph] = field(default_factory=list)
    truth: dict[str, list[Term]] = field(default_factory=dict)

    def vertex(self, name: str, name_en: str, panel: int, *parts: tuple[str, float]) -> int:
        """Add a vertex morph that sums basic movements; return its number."""
        chosen = [(self.moves[part], weight) for part, weight in parts if part in self.moves]
        if chosen:
            index = np.concatenate([move[0] for move, _ in chosen])
            offset = np.concatenate([move[1] * weight for move, weight in chosen])
            vertex, inverse = np.unique(index, return_inverse=True)
            total = np.stack([np.bincount(inverse, offset[:, k], len(vertex)) for k in range(3)], -1)
        else:
            vertex, total = np.empty(0, int), np.empty((0, 3))
        rows = np.zeros(len(vertex), pmx.VERTEX_OFFSET)
        rows["vertex"], rows["offset"] = vertex, total
        return self._add(name, name_en, panel, pmx.MORPH_VERTEX, rows)

    def group(self, name: str, name_en: str, panel: int, *members: tuple[int, float]) -> int:
        rows = np.zeros(len(members), pmx.GROUP_OFFSET)
        rows["morph"] = [member for member, _ in members]
        rows["weight"] = [weight for _, weight in members]
        return self._add(name, name_en, panel, pmx.MORPH_GROUP, rows)

    def bone(self, name: str, name_en: str, panel: int, bone: int, translation: np.ndarray) -> int:
        rows = np.zeros(1, pmx.BONE_OFFSET)
        rows["bone"], rows["translation"], rows["rotation"] = bone, translation, (0, 0, 0, 1)
        return self._add(name, name_en, panel, pmx.MORPH_BONE, rows)

    def show_material(self, name: str, name_en: str, material: int) -> int:
        """Add a material morph that makes an invisible material (alpha 0) visible."""
        rows = np.zeros(1, pmx.MATERIAL_OFFSET)
        rows["material"], rows["operation"] = material, 1
        rows["diffuse"] = (0, 0, 0, 1)
        return self._add(name, name_en, OTHER, pmx.MORPH_MATERIAL, rows)

    def separator(self, name: str, panel: int) -> None:
        if self.habits.separators:
            self._add(name, "", panel, pmx.MORPH_VERTEX, np.zeros(0, pmx.VERTEX_OFFSET))

    def _add(self, name: str, name_en: str, panel: int, kind: int, rows: np.ndarray) -> int:
        if self.habits.winks == "english" and name_en:
            name = name_en
        self.morphs.append(pmx.PmxMorph(name, name_en, panel, kind, rows))
        return len(self.morphs) - 1


def _brows(book: MorphBook) -> None:
    book.separator("--眉--", BROW)
    for name, name_en, move in (
        ("真面目", "serious", "brow_serious"),
        ("困る", "trouble", "brow_trouble"),
        ("にこり", "cheerful", "brow_happy"),
        ("怒り", "angry", "brow_angry"),
        ("上", "brow_up", "brow_up"),
        ("下", "brow_down", "brow_down"),
    ):
        book.vertex(name, name_en, BROW, (f"{move}_left", 1.0), (f"{move}_right", 1.0))


def _eyes(book: MorphBook) -> None:
    habits = book.habits
    book.separator("---目---", EYE)
    shapes = ("blink", "smile") if habits.has_smile else ("blink",)
    both_names = {"blink": ("まばたき", "blink"), "smile": ("笑い", "smile")}
    slot = {"blink": "normal", "smile": "smile"}

    def one_sided(shape: str) -> dict[str, int]:
        left, right = SPELLINGS[habits.winks][shape]
        found = {}
        for (name, name_en), side in ((left, "left"), (right, "right")):
            closed = {"left": "right", "right": "left"}[side] if habits.reversed_side else side
            found[closed] = book.vertex(name, name_en, EYE, (f"{shape}_{closed}", 1.0))
            book.truth[f"{slot[shape]}_{closed}"] = [(found[closed], 1.0, "both")]
        return found

    sides: dict[str, dict[str, int]] = {}
    if habits.group_blink and habits.winks not in ("none",):
        for shape in shapes:
            sides[shape] = one_sided(shape)
    for shape in shapes:
        name, name_en = both_names[shape]
        if shape in sides:
            both = book.group(name, name_en, EYE, (sides[shape]["left"], 1.0), (sides[shape]["right"], 1.0))
        else:
            both = book.vertex(name, name_en, EYE, (f"{shape}_left", 1.0), (f"{shape}_right", 1.0))
        book.truth[f"{slot[shape]}_both"] = [(both, 1.0, "both")]
    for shape in shapes:
        if habits.winks == "none":
            both = book.truth[f"{slot[shape]}_both"][0][0]
            for side in ("left", "right"):
                book.truth[f"{slot[shape]}_{side}"] = [(both, 1.0, side)]
        elif shape not in sides:
            one_sided(shape)
    book.vertex("じと目", "jitome", EYE, ("half_left", 1.0), ("half_right", 1.0))
    book.vertex("びっくり", "surprised", EYE, *((f"wide_{side}", 1.0) for side in ("left", "right")))
    if habits.extra_morphs:
        book.vertex("瞳小", "pupil_small", EYE, ("small_left", 1.0), ("small_right", 1.0))
        book.vertex(
            "なごみ",
            "calm",
            EYE,
            *((f"{shape}_{side}", 0.5) for shape in ("blink", "smile") for side in ("left", "right")),
        )
    if habits.repeated_names:
        book.vertex("じと目", "jitome", EYE, ("half_left", 0.6), ("half_right", 0.6))
        book.vertex(
            "まばたき" if habits.winks != "english" else "sleepy",
            "sleepy",
            OTHER,
            ("blink_left", 0.0),
            ("blink_right", 0.0),
        )


def _mouth(book: MorphBook, jaw: int, jaw_fall: np.ndarray) -> None:
    habits = book.habits
    book.separator("---口---", MOUTH)
    for vowel, key in VOWELS.items():
        if vowel == "あ" and habits.mouth == "group":
            lips = book.vertex("あ頂点", "a_lips", OTHER, ("mouth_a", 0.7))
            rest = book.vertex("あ開き", "a_open", OTHER, ("mouth_a", 0.3))
            number = book.group("あ", "a", MOUTH, (lips, 1.0), (rest, 1.0))
        elif vowel == "あ" and habits.mouth == "jaw":
            lips = book.vertex("あ頂点", "a_lips", OTHER, ("mouth_a", 1.0))
            fall = book.bone("あボーン", "a_jaw", OTHER, jaw, jaw_fall)
            number = book.group("あ", "a", MOUTH, (lips, 1.0), (fall, 1.0))
        else:
            number = book.vertex(vowel, key, MOUTH, (f"mouth_{key}", 1.0))
        if vowel == "あ":
            book.truth["mouth_open"] = [(number, 1.0, "both")]
    if habits.extra_morphs:
        book.vertex("ワ", "wa", MOUTH, ("mouth_wa", 1.0))
        book.vertex("▲", "triangle", MOUTH, ("mouth_triangle", 1.0))
        book.vertex("にやり", "grin", MOUTH, ("mouth_grin", 1.0))
        book.vertex("口角上げ", "mouth_up", MOUTH, ("mouth_grin", 0.6))
        book.vertex("口角下げ", "mouth_down", MOUTH, ("mouth_frown", 1.0))
        book.vertex("あ２", "a2", MOUTH, ("mouth_a", 0.55))


def build_morphs(
    moves: Moves, habits: Conventions, materials: dict[str, int], jaw: int, jaw_fall: np.ndarray
) -> tuple[tuple[pmx.PmxMorph, ...], dict[str, list[Term]]]:
    """Return the morphs in file order and the truth: terms for ``normal_left`` ... ``smile_both`` and ``mouth_open``.

    `materials` gives the numbers of materials by key; `jaw` is the jaw bone's number where `habits.mouth` is ``jaw``,
    `jaw_fall` its translation f64 [3] in MU. A slot without a morph has an empty list.
    """
    book = MorphBook(moves, habits)
    for shape in ("normal", "smile"):
        for side in ("left", "right", "both"):
            book.truth[f"{shape}_{side}"] = []
    _brows(book)
    _eyes(book)
    _mouth(book, jaw, jaw_fall)
    book.separator("--その他--", OTHER)
    if "blush" in materials:
        book.show_material("照れ", "blush", materials["blush"])
    if "tears" in materials:
        book.show_material("涙", "tears", materials["tears"])
    return tuple(book.morphs), book.truth
