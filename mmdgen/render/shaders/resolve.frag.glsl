// Averages the samples of a pixel premultiplied in linear light, then straight alpha and sRGB (IEC 61966-2-1), rows from
// the top. RGB is 0 wherever the stored alpha is 0. Defines: GRID (samples a side), LINEAR (0: values are sRGB already).

uniform sampler2D u_samples;
uniform int u_size;  // pixels a side of one tile
uniform int u_columns;  // tiles side by side

out vec4 f_color;

vec3 encode(vec3 linear) {
    vec3 low = linear * 12.92;
    vec3 high = 1.055 * pow(max(linear, 0.0031308), vec3(1.0 / 2.4)) - 0.055;
    return mix(high, low, lessThanEqual(linear, vec3(0.0031308)));
}

void main() {
    // Pictures lie one after the other, rows from the top; tiles in rows of u_columns, from the bottom.
    ivec2 pixel = ivec2(gl_FragCoord.xy);
    int tile = pixel.y / u_size;
    pixel.y = u_size - 1 - (pixel.y - tile * u_size);
    pixel += ivec2(tile % u_columns, tile / u_columns) * u_size;
    vec4 sum = vec4(0.0);
#if GRID % 2 == 0
    // A bilinear fetch where four samples meet is their average: a quarter of the fetches.
    vec2 scale = 1.0 / vec2(textureSize(u_samples, 0));
    for (int y = 1; y < GRID; y += 2)
        for (int x = 1; x < GRID; x += 2)
            sum += texture(u_samples, vec2(pixel * GRID + ivec2(x, y)) * scale);
    float alpha = sum.a / float(GRID * GRID / 4);
#else
    for (int y = 0; y < GRID; ++y)
        for (int x = 0; x < GRID; ++x)
            sum += texelFetch(u_samples, pixel * GRID + ivec2(x, y), 0);
    float alpha = sum.a / float(GRID * GRID);
#endif
    if (alpha < 0.5 / 255.0) {
        f_color = vec4(0.0);
    } else {
        vec3 color = clamp(sum.rgb / sum.a, 0.0, 1.0);
#if LINEAR
        color = encode(color);
#endif
        f_color = vec4(color, alpha);
    }
}
