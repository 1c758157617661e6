"""The golden pictures: which models and poses, and how they are drawn. For the test and tools/regen_goldens.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from toy import toy_binding, toy_builder, toy_view

from mmdgen.generate.characters import exact_annotation
from mmdgen.model.load import load_model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import View
from mmdgen.samples.library import write_characters

FOLDER = Path(__file__).parent / "goldens"
SIZE = 128
CHARACTERS = (0, 5, 11)
POSES = (
    THA1.rest,
    THA1.pose(head_x=0.8, head_y=-0.9, neck_z=0.6, left_eye=1.0, right_eye=0.3, mouth=0.2),
    THA1.pose(head_x=-0.7, head_y=0.8, neck_z=-0.5, right_eye=1.0, left_eye=1.0, mouth=0.6),
)


def draw_cases(renderer: Renderer) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, picture u8 [H, 3 W, 4]): the three poses side by side of the toy and of some characters."""
    prepared = prepare_model(toy_builder().model(), toy_binding(), toy_view(size=SIZE))
    with renderer.scene(prepared) as scene:
        yield "toy", np.concatenate(list(scene.posed(np.array(POSES))), axis=1)
    with tempfile.TemporaryDirectory() as folder:
        for seed in CHARACTERS:
            (path,) = write_characters(Path(folder), 1, first_seed=seed)
            model = load_model(path)
            found = exact_annotation(model)
            bounds = found.bounds
            binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
            view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=SIZE)
            with renderer.scene(prepare_model(model, binding, view)) as scene:
                yield f"character-{seed}", np.concatenate(list(scene.posed(np.array(POSES))), axis=1)
