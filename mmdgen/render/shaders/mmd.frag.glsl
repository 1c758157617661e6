// MikuMikuDance's own shading with self-shadow off, as measured against MMD 9.32 (docs/shading.md): everything in
// sRGB-encoded values as they are, without any conversion.
//   base = clamp(diffuse * light + ambient) * texture; sphere map multiplied or added; * toon(0, 0.5 - 0.5 n.l); + specular
// Normals are interpolated and not made unit length again: that shows on coarse meshes. Output: premultiplied.
// Defines: TILES, OPAQUE (no blending follows, nothing is discarded), DYNAMIC (the material comes per instance),
// SPHERE (0 none, 1 multiply, 2 add, 3 a texture by the second UV, multiplied), TOON, VERTEX_SPECULAR.

//!instances
//!material

uniform sampler2D u_texture;
uniform sampler2D u_sphere;
uniform sampler2D u_toon;
uniform vec3 u_light_color;
uniform vec3 u_to_light;
uniform vec3 u_right;
uniform vec3 u_up;

in vec3 v_normal;
in vec2 v_uv;
#if VERTEX_SPECULAR
in vec3 v_specular;
#endif
#if SPHERE == 3
in vec2 v_uv1;
#endif
#if TILES
flat in int v_instance;
#endif
out vec4 f_color;

#if DYNAMIC
// How material morphs change texels: a factor first, then an addition (as in saba and babylon-mmd, MIT).
vec3 morphed(vec3 texel, int row) {
    vec4 factor = INSTANCE(u_material_offset + row);
    vec4 added = INSTANCE(u_material_offset + row + 1);
    vec3 color = mix(vec3(1.0), texel * factor.rgb, factor.a);
    return clamp(color + (color - 1.0) * added.a, 0.0, 1.0) + added.rgb;
}
#endif

void main() {
    vec4 diffuse = DIFFUSE;
    vec3 ambient = AMBIENT;
    vec4 texel = texture(u_texture, v_uv);
#if DYNAMIC
    texel.rgb = morphed(texel.rgb, 4);
#endif
    vec3 color = clamp(diffuse.rgb * u_light_color + ambient, 0.0, 1.0) * texel.rgb;
    float alpha = diffuse.a * texel.a;
#if SPHERE
#if SPHERE == 3
    vec4 sphere = texture(u_sphere, v_uv1);
#else
    vec2 place = vec2(0.5 + 0.5 * dot(u_right, v_normal), 0.5 - 0.5 * dot(u_up, v_normal));
    vec4 sphere = texture(u_sphere, place);
#endif
#if DYNAMIC
    sphere.rgb = morphed(sphere.rgb, 6);
#endif
#if SPHERE == 2
    color += sphere.rgb;
#else
    color *= sphere.rgb;
#endif
    alpha *= sphere.a;
#endif
#if TOON
    vec3 toon = texture(u_toon, vec2(0.0, 0.5 - 0.5 * dot(v_normal, u_to_light))).rgb;
#if DYNAMIC
    toon = morphed(toon, 8);
#endif
    color *= toon;
#endif
#if VERTEX_SPECULAR
    color += v_specular;
#endif
    color = clamp(color, 0.0, 1.0);
#if OPAQUE
    f_color = vec4(color, 1.0);
#else
    if (alpha < 0.5 / 255.0) discard;
    f_color = vec4(color * alpha, alpha);
#endif
}
