"""What the codes of rejected and failed models mean, in a line each; docs/diagnostics.md says more."""

from __future__ import annotations

# code -> what it means, what to do about it
REASONS: dict[str, tuple[str, str]] = {
    "format_error": ("The file is no PMX or PMD, or is damaged in a part that pictures need.", "Get the file again."),
    "file_unreadable": ("The operating system refused to read the file.", "Look at its rights; read the message."),
    "file_too_large": ("The file has more than a gigabyte: it is no model.", "Move it away."),
    "duplicate": ("Byte for byte the same file as another one, which is used.", "Nothing."),
    "no_vertices": ("There are no vertices, or none that faces use.", "Nothing: there is no head."),
    "no_faces": ("There are no faces that can be drawn.", "Nothing, or get the file again."),
    "no_bones": ("There are no bones: a stage or an accessory.", "Nothing: it cannot be posed."),
    "no_materials": ("There are no materials, so nothing is drawn.", "Give the faces a material."),
    "crashed": (
        "Reading or drawing it ended the process again and again: a fault in native code, or too little memory.",
        "Report it with the file; try fewer workers, or another renderer.",
    ),
    "internal_error": ("An error that nobody foresaw; the message has its kind.", "Report it with the file."),
    "out_of_memory": ("There was not enough memory for it.", "Use fewer workers."),
    "timed_out": ("Reading it took too long: an enormous or hostile file.", "Give it more time, or move it away."),
    "no_head_bone": ("No bone is called 頭 or head in any known spelling.", "For a character: rename the bone."),
    "not_a_character": ("The head bone moves next to no vertices: an accessory.", "Nothing."),
    "no_eye_morph": ("No morph closes the eyes.", "Store one by hand: mmdgen annotate."),
    "no_eye_morph_left": ("No morph closes the character's left eye.", "Store one by hand: mmdgen annotate."),
    "no_eye_morph_right": ("No morph closes the character's right eye.", "Store one by hand: mmdgen annotate."),
    "no_mouth_morph": ("No morph opens the mouth.", "Store one by hand: mmdgen annotate."),
    "no_face_geometry": ("Eyes, mouth and chin do not lie as in a face.", "Store the head bounds by hand."),
    "not_facing_front": ("The eyes lie behind the middle of the head: it looks away.", "Turn it to face -z."),
    "head_textures_missing": (
        "Textures are missing or damaged, and the head would be drawn white where they belong.",
        "Put the files that the message names beside the model.",
    ),
    "nothing_in_view": ("No face lies in the picture around the head.", "Correct the stored head bounds."),
    "too_many_groups": ("The morphs of a pose move too many bones on their own.", "Store other morphs."),
    "denied": ("Its SHA-256 is on the list that --deny named.", "Nothing."),
    "not_allowed": ("--allow named a list, and its SHA-256 is not on it.", "Add the hash, if it may be used."),
    "denied_terms": ("Words beside it hint at what --deny-hints leaves out.", "Read them; hints may be wrong."),
    "rejected": ("A person has decided that it must not be used.", "Delete the stored decision if you disagree."),
    "unsure_head_bounds": ("Chin or skull top were not found surely.", "Look at it with mmdgen annotate."),
    "unsure_eyes": ("The morphs of eyes and mouth were not found surely.", "Look at it with mmdgen annotate."),
    "bad_annotation": ("A stored annotation cannot be read or breaks the schema.", "The message says where."),
    "stale_annotation": ("A stored annotation is for another file than this one.", "Annotate it anew."),
    "bad_term": ("A term names a morph that the model does not have, or a bad weight.", "Correct the term."),
    "model_missing": (
        "The file was no longer there when it was to be drawn.",
        "Put it back and use --retry-failed.",
    ),
    "model_changed": (
        "The file or one of its textures was not what it was when the plan was made.",
        "Put the old one back and use --retry-failed, or begin another dataset.",
    ),
    "render_error": (
        "Drawing it failed; the message says how.",
        "Read the message; mmdgen doctor checks the renderer.",
    ),
}
UNKNOWN = ("A code that this version does not know; the message says more.", "Read the message.")


def explain(code: str) -> tuple[str, str]:
    """Return what a code means, and what to do about it."""
    return REASONS.get(code, UNKNOWN)
