// Morphs and skinning for any batch size. Defines come from `programs.py`:
// GROUPS (rigid groups), DENSE_GROUPS (weights come per group, at most 4), INFLUENCES (groups a vertex follows at most),
// COLUMNS (morph parameters), DENSE_MORPHS (offsets come as attributes), TILES, SDEF, EDGE, FEEDBACK (0 or 1); of the
// shading: VERTEX_SPECULAR (MikuMikuDance has it by vertex), SECOND_UV, DYNAMIC (materials come per instance).
// Constant indices into a uniform block and attributes are several times faster on the software renderer than storage
// buffers; the general forms serve atlas batches and vocabularies with many parameters.

//!instances
#if !DENSE_MORPHS
layout(std430, binding = 1) readonly buffer MorphOffsets { float morph_offsets[]; };  // [slot][column][xyz uv], MU
#endif
#if SDEF
layout(std430, binding = 2) readonly buffer SdefCentres { float sdef_centres[]; };  // [slot][C, centre 0, centre 1], MU
#endif

uniform mat4 u_projection;
#if EDGE
uniform float u_push;  // MU along the normal for an edge of size 1
#if DYNAMIC
uniform int u_material_offset;
#else
uniform float u_edge_size;
#endif
#endif
#if VERTEX_SPECULAR
uniform vec4 u_eye;  // where the camera stands, or (w = 0) the direction towards it
uniform vec3 u_light_color;
uniform vec3 u_to_light;
#if DYNAMIC
uniform int u_material_offset;
#else
uniform vec4 u_specular;  // colour, power
#endif
out vec3 v_specular;
#endif
#if SECOND_UV
in vec2 in_uv1;
out vec2 v_uv1;
#endif
#if TILES
uniform ivec2 u_tiles;
uniform vec4 u_window;  // left, right, bottom, top in a tile's normalised device coordinates
out float gl_ClipDistance[4];
#endif

in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_weight;
#if !DENSE_GROUPS || SDEF
in uvec4 in_group;
#endif
#if DENSE_GROUPS
in vec4 in_group_weight;
#endif
#if DENSE_MORPHS
#if COLUMNS > 0
in vec3 in_morph_0;
#endif
#if COLUMNS > 1
in vec3 in_morph_1;
#endif
#if COLUMNS > 2
in vec3 in_morph_2;
#endif
#if COLUMNS > 3
in vec3 in_morph_3;
#endif
#else
in int in_morph_slot;
#endif
#if SDEF
in int in_sdef_slot;
#endif
in float in_edge_scale;

out vec3 v_normal;
out vec2 v_uv;
#if TILES
flat out int v_instance;
#endif
#if FEEDBACK
out vec3 v_position;
#endif

vec3 rotate(vec4 q, vec3 v) {
    vec3 twice = 2.0 * cross(q.xyz, v);
    return v + q.w * twice + cross(q.xyz, twice);
}

vec4 slerp(vec4 a, vec4 b, float t) {
    float cosine = dot(a, b);
    if (cosine < 0.0) { b = -b; cosine = -cosine; }
    float sine = length(b - cosine * a);
    if (sine < 1e-4) return normalize(mix(a, b, t));
    float angle = atan(sine, cosine);  // the software renderer's acos is off by 1e-4
    return normalize(sin((1.0 - t) * angle) * a + sin(t * angle) * b);
}

vec3 transform(int group, vec4 point) {
    return vec3(dot(INSTANCE(group), point), dot(INSTANCE(group + 1), point), dot(INSTANCE(group + 2), point));
}

void main() {
    vec3 position = in_position;
    vec2 uv = in_uv;
#if DENSE_MORPHS
    vec4 weights = INSTANCE(GROUPS * 4);
#if COLUMNS > 0
    position += weights.x * in_morph_0;
#endif
#if COLUMNS > 1
    position += weights.y * in_morph_1;
#endif
#if COLUMNS > 2
    position += weights.z * in_morph_2;
#endif
#if COLUMNS > 3
    position += weights.w * in_morph_3;
#endif
#else
    if (in_morph_slot >= 0) {
        for (int column = 0; column < COLUMNS; ++column) {
            float weight = INSTANCE(GROUPS * 4 + column / 4)[column % 4];
            int row = (in_morph_slot * COLUMNS + column) * 5;
            position += weight * vec3(morph_offsets[row], morph_offsets[row + 1], morph_offsets[row + 2]);
            uv += weight * vec2(morph_offsets[row + 3], morph_offsets[row + 4]);
        }
    }
#endif
#if DENSE_GROUPS
    vec3 posed = in_group_weight[0] * position;  // group 0 never moves
    vec3 normal = in_group_weight[0] * in_normal;
    for (int group = 1; group < GROUPS; ++group) {
        posed += in_group_weight[group] * transform(group * 4, vec4(position, 1.0));
        normal += in_group_weight[group] * transform(group * 4, vec4(in_normal, 0.0));
    }
#else
    vec3 posed = vec3(0.0);
    vec3 normal = vec3(0.0);
    for (int i = 0; i < INFLUENCES; ++i) {
        int group = int(in_group[i]) * 4;
        posed += in_weight[i] * transform(group, vec4(position, 1.0));
        normal += in_weight[i] * transform(group, vec4(in_normal, 0.0));
    }
#endif
#if SDEF
    if (in_sdef_slot >= 0) {
        int row = in_sdef_slot * 9;
        vec3 c = vec3(sdef_centres[row], sdef_centres[row + 1], sdef_centres[row + 2]);
        vec4 first = vec4(sdef_centres[row + 3], sdef_centres[row + 4], sdef_centres[row + 5], 1.0);
        vec4 second = vec4(sdef_centres[row + 6], sdef_centres[row + 7], sdef_centres[row + 8], 1.0);
        int a = int(in_group[0]) * 4;
        int b = int(in_group[1]) * 4;
        vec4 turn = slerp(INSTANCE(a + 3), INSTANCE(b + 3), in_weight[1]);
        posed = rotate(turn, position - c) + in_weight[0] * transform(a, first) + in_weight[1] * transform(b, second);
        normal = rotate(turn, in_normal);
    }
#endif
#if EDGE
#if DYNAMIC
    float size = INSTANCE(u_material_offset + 1).w;
#else
    float size = u_edge_size;
#endif
    posed += normalize(normal) * (u_push * size * in_edge_scale);
#endif
#if VERTEX_SPECULAR
#if DYNAMIC
    vec4 specular = INSTANCE(u_material_offset + 3);
#else
    vec4 specular = u_specular;
#endif
    vec3 to_eye = normalize(u_eye.xyz - u_eye.w * posed);
    float shine = max(dot(normalize(to_eye + u_to_light), normal), 0.0);
    v_specular = specular.a > 0.0 ? specular.rgb * u_light_color * pow(shine, specular.a) : vec3(0.0);
#endif
#if SECOND_UV
    v_uv1 = in_uv1;
#endif
    v_normal = normal;
    v_uv = uv;
#if TILES
    v_instance = gl_InstanceID;
#endif
#if FEEDBACK
    v_position = posed;
#endif
    gl_Position = u_projection * vec4(posed, 1.0);
#if TILES
    gl_ClipDistance[0] = gl_Position.x - u_window.x;
    gl_ClipDistance[1] = u_window.y - gl_Position.x;
    gl_ClipDistance[2] = gl_Position.y - u_window.z;
    gl_ClipDistance[3] = u_window.w - gl_Position.y;
    vec2 tile = vec2(gl_InstanceID % u_tiles.x, gl_InstanceID / u_tiles.x);
    gl_Position.xy = (gl_Position.xy + 2.0 * tile + 1.0) / vec2(u_tiles) - 1.0;
#endif
}
