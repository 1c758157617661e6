// Places vertices that `model.vert` has morphed and skinned twice: for the posed image, and for the expression image
// (the same morphs, the head at rest). Defines: MAP (the expression image is drawn, else the posed one), EDGE, DYNAMIC,
// SECOND_UV, TILES (the vertices come from storage buffers, by instance; else as attributes).

//!instances

uniform mat4 u_projection;
uniform vec2 u_depth;  // pixels per MU, and the z (MU) that is one pixel deep
#if EDGE
uniform float u_push;  // MU along the normal for an edge of size 1
#if DYNAMIC
uniform int u_material_offset;
#else
uniform float u_edge_size;
#endif
#endif
#if TILES
// Two a vertex: position and the normal's x; the normal's y and z and the uv.
layout(std430, binding = 3) readonly buffer Turned { vec4 turned[]; };
layout(std430, binding = 4) readonly buffer Still { vec4 still[]; };
uniform int u_vertices;
uniform ivec2 u_tiles;
out float gl_ClipDistance[4];
flat out int v_instance;
#else
in vec3 in_turned;
in vec3 in_turned_normal;
in vec2 in_turned_uv;
in vec3 in_still;
in vec3 in_still_normal;
#endif
#if EDGE
in float in_edge_scale;
#endif
#if SECOND_UV
in vec2 in_uv1;
out vec2 v_uv1;
#endif

out vec3 v_normal;
out vec2 v_uv;
out vec3 v_place;  // displacement to the expression image (pixels, x right, y down), depth there (pixels, from 1)

void main() {
#if TILES
    int row = (gl_InstanceID * u_vertices + gl_VertexID) * 2;
    vec3 position = turned[row].xyz;
    vec3 normal = vec3(turned[row].w, turned[row + 1].xy);
    vec3 before = still[row].xyz;
    vec3 before_normal = vec3(still[row].w, still[row + 1].xy);
    v_uv = turned[row + 1].zw;
    v_instance = gl_InstanceID;
#else
    vec3 position = in_turned;
    vec3 normal = in_turned_normal;
    vec3 before = in_still;
    vec3 before_normal = in_still_normal;
    v_uv = in_turned_uv;
#endif
#if EDGE
#if DYNAMIC
    float size = INSTANCE(u_material_offset + 1).w;
#else
    float size = u_edge_size;
#endif
    position += normalize(normal) * (u_push * size * in_edge_scale);
    before += normalize(before_normal) * (u_push * size * in_edge_scale);
#endif
#if SECOND_UV
    v_uv1 = in_uv1;
#endif
    v_place = vec3(before.x - position.x, position.y - before.y, before.z - u_depth.y) * u_depth.x + vec3(0.0, 0.0, 1.0);
#if MAP
    v_normal = before_normal;
    gl_Position = u_projection * vec4(before, 1.0);
#else
    v_normal = normal;
    gl_Position = u_projection * vec4(position, 1.0);
#endif
#if TILES
    gl_ClipDistance[0] = gl_Position.x + 1.0;  // what leaves its tile must not show in the next one
    gl_ClipDistance[1] = 1.0 - gl_Position.x;
    gl_ClipDistance[2] = gl_Position.y + 1.0;
    gl_ClipDistance[3] = 1.0 - gl_Position.y;
    vec2 tile = vec2(gl_InstanceID % u_tiles.x, gl_InstanceID / u_tiles.x);
    gl_Position.xy = (gl_Position.xy + 2.0 * tile + 1.0) / vec2(u_tiles) - 1.0;
#endif
}
