// What surface a pixel shows, by the rules of the picture: a fragment counts when it is at least half opaque; a thinner
// one only writes depth, as it does in the picture, and keeps what was there (the output is premultiplied by 1 or 0).
// Bodies have positive depths, outlines negative ones, so that neither is taken for the other.
// MAP: depth and its slopes (pixels), 1. Else: displacement, depth in the expression image (pixels), 1.
// Further defines: OPAQUE, EDGE, DYNAMIC, SECOND_UV, TILES.

//!instances

uniform sampler2D u_texture;
uniform sampler2D u_sphere;  // `mmd`; white where there is none
uniform vec3 u_right;
uniform vec3 u_up;
#if DYNAMIC
uniform int u_material_offset;
#else
uniform float u_alpha;
#endif

in vec3 v_normal;
in vec2 v_uv;
in vec3 v_place;
#if SECOND_UV
in vec2 v_uv1;
#endif
#if TILES
flat in int v_instance;
#endif
out vec4 f_place;

void main() {
#if EDGE
    float depth = -v_place.z;
#else
    float depth = v_place.z;
#endif
#if MAP
    vec4 place = vec4(depth, dFdx(v_place.z), dFdy(v_place.z), 1.0);
#else
    vec4 place = vec4(v_place.xy, depth, 1.0);
#endif
#if EDGE
#if DYNAMIC
    if (INSTANCE(u_material_offset).a < 0.5 / 255.0) discard;
    float alpha = INSTANCE(u_material_offset + 2).a;
#else
    float alpha = u_alpha;
#endif
    f_place = alpha < 0.5 ? vec4(0.0) : place;
#elif OPAQUE
    f_place = place;
#else
#if DYNAMIC
    float alpha = INSTANCE(u_material_offset).a;
#else
    float alpha = u_alpha;
#endif
    alpha *= texture(u_texture, v_uv).a;
#if SECOND_UV
    alpha *= texture(u_sphere, v_uv1).a;
#else
    alpha *= texture(u_sphere, vec2(0.5 + 0.5 * dot(u_right, v_normal), 0.5 - 0.5 * dot(u_up, v_normal))).a;
#endif
    if (alpha < 0.5 / 255.0) discard;
    f_place = alpha < 0.5 ? vec4(0.0) : place;
#endif
}
