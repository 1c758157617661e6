// Ambient and diffuse reflection in linear light, as in the article (section 5.3) and its author's renderer:
// (ambient * La + diffuse * max(n.l, 0) * Ld) * texture, optionally a Blinn highlight. The directional light travels
// along the view (+z), so l = -z; the texture is premultiplied in linear light. Output: premultiplied, linear.
// Defines: TILES, OPAQUE (no blending follows, nothing is discarded), SPECULAR, DYNAMIC (material colours come per instance).

//!instances
//!material

uniform sampler2D u_texture;
uniform vec2 u_light;  // ambient, directional
#if SPECULAR
uniform vec4 u_specular;  // colour * scale, power
#endif

in vec3 v_normal;
in vec2 v_uv;
#if TILES
flat in int v_instance;
#endif
out vec4 f_color;

void main() {
    vec4 diffuse = DIFFUSE;
    vec3 ambient = AMBIENT;
    vec4 texel = texture(u_texture, v_uv);
#if !OPAQUE
    float alpha = diffuse.a * texel.a;
    if (alpha < 0.5 / 255.0) discard;
#endif
    float facing = v_normal.z * inversesqrt(max(dot(v_normal, v_normal), 1e-20));
    float lambert = max(gl_FrontFacing ? -facing : facing, 0.0);
    vec3 light = ambient * u_light.x + diffuse.rgb * (u_light.y * lambert);
#if OPAQUE
    vec3 color = light * texel.rgb;
#else
    vec3 color = light * texel.rgb * diffuse.a;
#endif
#if SPECULAR
    vec3 highlight = lambert > 0.0 ? u_specular.rgb * (u_light.y * pow(lambert, u_specular.a)) : vec3(0.0);
#if OPAQUE
    color += highlight;
#else
    color += highlight * alpha;
#endif
#endif
#if OPAQUE
    f_color = vec4(min(color, 1.0), 1.0);
#else
    f_color = vec4(min(color, alpha), alpha);
#endif
}
