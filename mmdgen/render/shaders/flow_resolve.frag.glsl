// The displacement in whole steps and the visibility of every pixel, rows from the top.
// A surface is visible when at least half of what a bilinear sample of the expression image takes at its place is that
// surface: when of the four pixels around it those with a half of the weight show it. A pixel shows it where the plane
// that it shows passes through the place at the surface's depth. The tolerance: one pixel, more where the planes are
// steep and neighbouring faces are not one plane. So flat surfaces never hide themselves at any angle.

uniform sampler2D u_places;
uniform sampler2D u_map;
uniform int u_size;  // pixels a side of one tile
uniform float u_steps;  // a pixel
uniform float u_most;  // the largest number of steps

out ivec4 f_result;  // dx, dy, visibility, 0

const float BIAS = 1.0, STEEP = 0.75, STEEPEST = 8.0;

void main() {
    ivec2 pixel = ivec2(gl_FragCoord.xy);
    pixel.y += u_size - 1 - 2 * (pixel.y % u_size);  // the same tile, upside down
    vec4 place = texelFetch(u_places, pixel, 0);
    if (place.a < 0.5) {
        f_result = ivec4(0);
        return;
    }
    ivec2 origin = pixel / u_size * u_size;
    vec2 inside = vec2(pixel - origin) + vec2(place.x, -place.y);
    vec2 corner = floor(inside);
    vec2 part = inside - corner;
    float seen = 0.0;
    for (int i = 0; i < 4; ++i) {
        ivec2 step = ivec2(i & 1, i >> 1);
        vec2 share = mix(1.0 - part, part, vec2(step));
        vec2 at = corner + vec2(step);
        if (any(lessThan(at, vec2(0.0))) || any(greaterThanEqual(at, vec2(u_size)))) continue;
        vec4 there = texelFetch(u_map, origin + ivec2(at), 0);
        if (there.a < 0.5 || (there.x < 0.0) != (place.z < 0.0)) continue;
        float depth = abs(there.x) + dot(there.yz, inside - at);
        float tolerance = BIAS + STEEP * min(length(there.yz), STEEPEST);
        if (abs(depth - abs(place.z)) <= tolerance) seen += share.x * share.y;
    }
    ivec2 moved = ivec2(round(clamp(place.xy * u_steps, -u_most, u_most)));
    f_result = ivec4(moved, seen >= 0.5 ? 2 : 1, 0);
}
