"""The CPU rasteriser against the same formulas and the same numpy rasteriser that hold the OpenGL renderer.

These are those tests themselves, with another `renderer`.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from test_deform import (  # noqa: F401
    test_appends_turn_by_the_scaled_angle,
    test_as_many_moving_bones_as_are_allowed_are_drawn,
    test_bone_morphs_turn_by_slerp_and_add_up,
    test_eyes_and_mouth_moved_by_bones_look_as_if_moved_by_vertices,
)
from test_material_morphs import (  # noqa: F401
    test_colours_follow_the_formulas,
    test_groups_scale_the_weight,
    test_minus_one_is_every_material,
    test_parts_appear_and_vanish,
)
from test_mmd_shading import (  # noqa: F401
    test_a_bright_base_is_clamped_before_the_texture,
    test_a_second_texture_by_the_additional_uv,
    test_a_sphere_map_with_alpha_makes_the_part_transparent,
    test_alpha_zero_lets_what_lies_behind_show,
    test_base_colour_has_no_lambert_term,
    test_highlights_are_worked_out_at_vertices,
    test_layers_blend_in_encoded_values,
    test_material_morphs_reach_texels_and_highlights,
    test_no_toon_where_the_file_has_none,
    test_shared_toon_ramps,
    test_sphere_maps_take_normals_that_are_not_made_unit_again,
    test_texture_colours_are_used_as_they_are_and_alpha_multiplies,
    test_toon_ramp,
)
from test_phong_oracle import (  # noqa: F401
    characters,
    test_characters_agree,
    test_confetti,
    test_level_0_textures_agree_to_rounding,
    test_magnified_textures_light_deforms_and_edges,
    test_minified_smooth_textures,
    test_normals_and_hulls_under_a_large_turn,
    test_of_layers_in_one_plane_the_later_shows,
    test_toys_agree_to_rounding_everywhere,
)
from test_render import (  # noqa: F401
    test_a_flat_face_has_the_formula_s_colour,
    test_a_highlight_is_optional,
    test_a_part_that_a_morph_hides_takes_its_outline_along,
    test_angles_are_fifteen_degrees,
    test_back_faces_are_culled_unless_double_sided,
    test_chin_and_skull_top_fall_on_rows_192_and_64,
    test_dropping_faces_changes_no_pixel,
    test_each_eye_closes_on_its_own_side,
    test_expression_images_equal_full_redraws_bit_for_bit,
    test_gpu_positions_agree_with_the_oracle,
    test_head_x_looks_up,
    test_head_y_turns_the_face_to_image_left,
    test_light_falls_off_with_the_cosine_on_both_sides,
    test_material_morphs_show_hidden_parts,
    test_more_samples_converge,
    test_neck_z_leans_the_top_of_the_head_to_image_left,
    test_no_halo_from_transparent_texels,
    test_order_and_company_do_not_matter,
    test_outlines_widen_the_silhouette_by_their_size,
    test_pose_data_too_large_for_a_uniform_block,
    test_poses_of_the_wrong_shape_are_refused,
    test_rgb_is_zero_where_alpha_is_zero_and_edges_are_straight,
    test_textures_have_row_0_at_v_0,
    test_the_mouth_is_open_at_one_and_at_rest,
    test_translucent_layers_blend_in_linear_light_and_material_order,
    test_translucent_materials_write_depth_as_in_mmd,
    test_two_batches_of_a_scene_may_be_drawn_in_turn,
    test_uv_morphs_move_the_texture,
)
from test_transparency import (  # noqa: F401
    test_a_blush_on_skin_is_the_formula_s,
    test_a_fringe_over_a_face_has_no_rim,
    test_colours_of_transparent_texels_never_show,
    test_layers_follow_the_order_of_materials,
    test_many_layers_stay_within_the_half_floats_bound,
    test_nothing_is_left_of_what_is_nearly_invisible,
    test_pasted_boxes_equal_whole_pictures_at_translucent_borders,
)

from mmdgen.render.cpu_scene import CpuScene


@pytest.fixture(scope="module")
def renderer():
    return SimpleNamespace(scene=CpuScene)
