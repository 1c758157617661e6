// Outlines: the back faces of a hull pushed out along the normals, in one flat colour. Premultiplied, linear light or
// (`mmd`) as it is. Defines: TILES, DYNAMIC (the colour comes per instance), LINEAR.

//!instances

#if DYNAMIC
uniform int u_material_offset;
#if TILES
flat in int v_instance;
#endif
#else
uniform vec4 u_edge_color;
#endif

out vec4 f_color;

void main() {
#if DYNAMIC
    // A part that a morph hides takes its outline along.
    if (INSTANCE(u_material_offset).a < 0.5 / 255.0) discard;
    vec4 color = INSTANCE(u_material_offset + 2);
#if LINEAR
    vec3 low = color.rgb / 12.92;
    vec3 high = pow((color.rgb + 0.055) / 1.055, vec3(2.4));
    color.rgb = mix(high, low, lessThanEqual(color.rgb, vec3(0.04045)));
#endif
    f_color = vec4(color.rgb * color.a, color.a);
#else
    f_color = u_edge_color;
#endif
}
