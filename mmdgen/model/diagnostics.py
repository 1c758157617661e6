"""The stable codes of what a loader repairs, and the list that it collects them in."""

from __future__ import annotations

from mmdgen.errors import one_line
from mmdgen.model.records import Diagnostic

MESSAGE_LIMIT = 300  # characters; a file has thousands of them where it is damaged throughout

# code: what was found, and what was done about it
CODES = {
    "append_cycle": "A bone takes (directly or through others) from a bone that depends on it; it no longer takes.",
    "append_source_out_of_range": "A bone takes from a bone that does not exist; it no longer takes.",
    "bone_cycle": "Bones are each other's parents; one of them became a root.",
    "bone_parent_out_of_range": "A bone's parent does not exist; the bone became a root.",
    "bone_value_invalid": "A bone's position or append ratio is no usable number; its parent's place or 0 was taken.",
    "edge_scale_invalid": "Vertices have an outline scale that is no number or negative; it became 1 or 0.",
    "face_remainder": "The vertex indices of the faces are no multiple of three; those left over were dropped.",
    "face_vertex_invalid": "Faces use vertices that do not exist or have no position; those faces were dropped.",
    "file_truncated": "The file ends inside an optional section; that section was left out.",
    "material_face_count": "The materials' face counts do not add up to the number of faces; the rest is left out.",
    "material_value_invalid": "A material's colour, power or edge size is no number; it became 0 (alpha 1).",
    "morph_group_nested": "A group morph holds itself or another group; MMD ignores that, and so do we.",
    "morph_index_out_of_range": "A morph moves something that does not exist; those entries were dropped.",
    "morph_value_invalid": "A morph holds numbers that are none; those entries were dropped.",
    "name_damaged": "A name is not valid in its encoding; what could not be decoded became U+FFFD.",
    "name_duplicate": "Several bones, morphs or materials have one name; they are told apart by index.",
    "normal_invalid": "Normals are zero or no numbers; they were computed from the faces.",
    "normal_length": "Normals are far from length 1; they were normalised.",
    "position_invalid": "Vertices have no usable position; they became 0 and their faces were dropped.",
    "sdef_invalid": "Spherical deforms have unusable numbers or bones; those vertices deform linearly.",
    "sphere_mode_invalid": "A material's sphere mode is unknown; the sphere texture was left out.",
    "texture_index_out_of_range": "A material names a texture that does not exist; it has none.",
    "texture_missing": "A texture file was not found; the material is drawn without it.",
    "uv_invalid": "Texture coordinates are no numbers; they became 0.",
    "weight_bone_out_of_range": "Vertices hang on bones that do not exist; those weights were dropped.",
    "weight_invalid": "Bone weights are negative, no numbers or do not add up to 1; they were normalised.",
    "weight_zero": "Vertices have no bone weight at all; they hang on their first bone.",
}


class Diagnostics:
    """Collects repairs in the order in which they are found; an unknown code raises `KeyError` (it is our mistake)."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, code: str, section: str, index: int, message: str) -> None:
        """Note one repair. `section` is the file's section, `index` the (first) element there, -1 for the section."""
        if code not in CODES:
            raise KeyError(f"{code!r} is not listed in mmdgen.model.diagnostics.CODES")
        self._found.append(Diagnostic(code, section, index, one_line(message, MESSAGE_LIMIT)))

    def as_tuple(self) -> tuple[Diagnostic, ...]:
        """Everything noted so far."""
        return tuple(self._found)
