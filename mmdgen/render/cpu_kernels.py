"""The CPU rasteriser's inner loops: triangles to samples, samples to colours, colours to pixels.

Triangles come in drawing order. An opaque one only leaves its number at the samples where it is nearest so far; what a
sample's last owner looks like is worked out at the end, or when a translucent triangle is drawn over it. So nothing
that is hidden is ever shaded, and the result is that of drawing everything in order.

The view is orthographic: depth and all attributes are planes over the picture, the mip level is one per triangle. All
planes are relative to the triangle's own first corner, never to what part of the picture is drawn, so that a part is
bit for bit a part of the whole.

numba keeps compiled code as long as the kernel's own file does not change. `CALLED` makes it change with what kernels
call in other files.
"""

from __future__ import annotations

from math import ceil, floor, sqrt

import numpy as np

from mmdgen.render.cpu_jit import helper, kernel, part
from mmdgen.render.cpu_simd import ROWS, cover, mix_texels, shade_phong, spans

# The first 16 digits of the SHA-256 of cpu_jit.py and cpu_simd.py together; a test says what it has to be.
CALLED = "f6c26d8d35292519"

# Columns of the draws' whole numbers (`cpu_draws.DrawTable`), and of their values.
KIND, BLEND, CULL, TEXTURE, SPHERE_MODE, SPHERE, TOON, SPECULAR, HIDES, INTS = range(10)
PHONG_BODY, MMD_BODY, OUTLINE = range(3)  # KIND
CULL_BACK, CULL_FRONT = 1, 2
DIFFUSE, AMBIENT, EDGE_SIZE, EDGE, SHINE, TEXEL_MORPH, SPHERE_MORPH, TOON_MORPH = 0, 4, 7, 8, 12, 16, 24, 32
VALUES = 40
MORPHED = INTS  # one more column: a material morph changes its texels
LEVELS = 16  # rows of the table of texels for each texture
ADDRESS, WIDTH, HEIGHT = range(3)
_EMPTY, _COLOURED = -1, -2  # owners that are no triangles
_DRAW, _FACE, _READY, _TEXELS, _SPHERE_TEXELS, _FRONT = range(6)
NUMBERS, PLANES = 6, 28  # of a triangle that is drawn: whole numbers and f32
# Where planes begin: value at the corner, by x, by y. As numpy's numbers, lest numba compiles functions once a value.
_U, _V, _A, _B, _C, _S = np.array([2, 5, 8, 11, 14, 17], np.int64)
_ONCE, _REPEAT, _OVER, _OPAQUE = np.array([0, 1, 0, 1], np.int64)
_F0, _F1, _FHALF = np.float32(0), np.float32(1), np.float32(0.5)
_INVISIBLE = np.float32(0.5 / 255)
_SOLID = np.float32(254.5 / 255)
_FAR = np.float32(1e9)
_SMALL = np.float32(1e-20)
_BYTE = np.float32(255)
_TEXEL = np.float32(1 / 65535)  # texels are linear light, 16 bits a channel
CODES = 4096  # entries of the table that encodes linear light


@helper
def _power(base, exponent):
    """base ** exponent for base in [0, 1] and exponent > 0, to 1e-9."""
    if base <= 0:
        return 0.0
    octaves, part = 0.0, np.float64(base)
    while part < 0.7071067811865476:
        part *= 2.0
        octaves -= 1.0
        if octaves < -60:
            return 0.0
    ratio = (part - 1.0) / (part + 1.0)  # log((1 + r) / (1 - r)) = 2 (r + r^3 / 3 + r^5 / 5 + ...)
    square, term, total = ratio * ratio, ratio, 0.0
    for k in range(10):
        total += term / (2.0 * k + 1.0)
        term *= square
    power = (octaves + 2.0 * total * 1.4426950408889634) * exponent
    if power < -60:
        return 0.0
    whole = floor(power)
    angle, term, total = (power - whole) * 0.6931471805599453, 1.0, 1.0
    for k in range(1, 14):
        term *= angle / k
        total += term
    while whole < 0:
        total *= 0.5
        whole += 1.0
    return total


@part
def _fetch(texels, row, x, y, repeat):
    """Return (r, g, b, alpha) f32 by bilinear filtering at (x, y), in texels from the middle of the first."""
    if not (-_FAR < x < _FAR and -_FAR < y < _FAR):
        x = y = _F0
    x0, y0 = np.int64(x), np.int64(y)
    x0 -= x < np.float32(x0)  # down, not towards zero
    y0 -= y < np.float32(y0)
    fx, fy = x - np.float32(x0), y - np.float32(y0)
    x1, y1 = x0 + 1, y0 + 1
    width, height = texels[row, WIDTH], texels[row, HEIGHT]
    if x0 < 0 or x1 >= width:
        x0, x1 = (x0 % width, x1 % width) if repeat else (min(max(x0, 0), width - 1), min(max(x1, 0), width - 1))
    if y0 < 0 or y1 >= height:
        y0, y1 = (y0 % height, y1 % height) if repeat else (min(max(y0, 0), height - 1), min(max(y1, 0), height - 1))
    y0, y1 = y0 * width, y1 * width
    gx, gy = _F1 - fx, (_F1 - fy) * _TEXEL
    fy *= _TEXEL
    shares = (gx * gy, fx * gy, gx * fy, fx * fy)
    return mix_texels(np.uint64(texels[row, ADDRESS]), (y0 + x0, y0 + x1, y1 + x0, y1 + x1), shares)


@part
def _morphed(value, texel_factor, factor, added, share):
    """What a material morph makes of one channel of a texel: a factor first, then an addition."""
    color = _F1 + (value * texel_factor - _F1) * factor
    return min(max(color + (color - _F1) * share, _F0), _F1) + added


@part
def _morph_texel(r, g, b, values, draw, at):
    factor, share = values[draw, at + 3], values[draw, at + 7]
    return (
        _morphed(r, values[draw, at], factor, values[draw, at + 4], share),
        _morphed(g, values[draw, at + 1], factor, values[draw, at + 5], share),
        _morphed(b, values[draw, at + 2], factor, values[draw, at + 6], share),
    )


@part
def _shade(n, px, py, opaque, tables, buffers):
    """Return drawn triangle `n`'s premultiplied colour (r, g, b, alpha) f32 at sample (px, py)."""
    ints, values, _, texels = tables
    numbers, planes = buffers[3], buffers[4]
    draw = numbers[n, _DRAW]
    if ints[draw, KIND] == OUTLINE:
        return values[draw, EDGE], values[draw, EDGE + 1], values[draw, EDGE + 2], values[draw, EDGE + 3]
    dx, dy = px - planes[n, 0], py - planes[n, 1]
    r = g = b = alpha = _F1
    row = np.int64(numbers[n, _TEXELS])
    if row >= 0:
        u = planes[n, _U] + planes[n, _U + 1] * dx + planes[n, _U + 2] * dy
        v = planes[n, _V] + planes[n, _V + 1] * dx + planes[n, _V + 2] * dy
        r, g, b, alpha = _fetch(texels, row, u, v, _REPEAT)
    strength = values[draw, DIFFUSE + 3]
    if ints[draw, KIND] == PHONG_BODY:
        nx = planes[n, _A] + planes[n, _A + 1] * dx + planes[n, _A + 2] * dy
        ny = planes[n, _B] + planes[n, _B + 1] * dx + planes[n, _B + 2] * dy
        nz = planes[n, _C] + planes[n, _C + 1] * dx + planes[n, _C + 2] * dy
        facing = nz / np.float32(sqrt(max(nx * nx + ny * ny + nz * nz, _SMALL)))
        if numbers[n, _FRONT]:
            facing = -facing
        lambert = max(facing, _F0)
        if opaque:
            strength = alpha = _F1
        else:
            alpha *= strength
        r *= (values[draw, AMBIENT] + values[draw, DIFFUSE] * lambert) * strength
        g *= (values[draw, AMBIENT + 1] + values[draw, DIFFUSE + 1] * lambert) * strength
        b *= (values[draw, AMBIENT + 2] + values[draw, DIFFUSE + 2] * lambert) * strength
        if ints[draw, SPECULAR] and lambert > _F0:
            shine = np.float32(_power(np.float64(lambert), np.float64(values[draw, SHINE + 3]))) * alpha
            r += values[draw, SHINE] * shine
            g += values[draw, SHINE + 1] * shine
            b += values[draw, SHINE + 2] * shine
        return min(r, alpha), min(g, alpha), min(b, alpha), alpha
    # MikuMikuDance's: sRGB values as they are, straight alpha until the end.
    alpha *= strength
    if ints[draw, MORPHED]:
        r, g, b = _morph_texel(r, g, b, values, draw, TEXEL_MORPH)
    r *= values[draw, DIFFUSE]
    g *= values[draw, DIFFUSE + 1]
    b *= values[draw, DIFFUSE + 2]
    if ints[draw, SPHERE_MODE]:
        u = planes[n, _A] + planes[n, _A + 1] * dx + planes[n, _A + 2] * dy
        v = planes[n, _B] + planes[n, _B + 1] * dx + planes[n, _B + 2] * dy
        sr, sg, sb, sa = _fetch(texels, np.int64(numbers[n, _SPHERE_TEXELS]), u, v, _ONCE)
        if ints[draw, MORPHED]:
            sr, sg, sb = _morph_texel(sr, sg, sb, values, draw, SPHERE_MORPH)
        if ints[draw, SPHERE_MODE] == 2:
            r, g, b = r + sr, g + sg, b + sb
        else:
            r, g, b = r * sr, g * sg, b * sb
        alpha *= sa
    if ints[draw, TOON] >= 0:
        v = planes[n, _C] + planes[n, _C + 1] * dx + planes[n, _C + 2] * dy
        tr, tg, tb, _ = _fetch(texels, np.int64(ints[draw, TOON] * LEVELS), -_FHALF, v, _ONCE)
        if ints[draw, MORPHED]:
            tr, tg, tb = _morph_texel(tr, tg, tb, values, draw, TOON_MORPH)
        r, g, b = r * tr, g * tg, b * tb
    if ints[draw, SPECULAR]:
        r += planes[n, _S] + planes[n, _S + 1] * dx + planes[n, _S + 2] * dy
        g += planes[n, _S + 3] + planes[n, _S + 4] * dx + planes[n, _S + 5] * dy
        b += planes[n, _S + 6] + planes[n, _S + 7] * dx + planes[n, _S + 8] * dy
    if opaque:
        alpha = _F1
    r, g, b = min(max(r, _F0), _F1), min(max(g, _F0), _F1), min(max(b, _F0), _F1)
    return r * alpha, g * alpha, b * alpha, alpha


@part
def _level(edges, area, texture, textures):
    """Return the nearest mip level for d(uv) / d(sample) (OpenGL 4.3, 8.14.3): ceil(log2(longest) - 1 / 2), from 0.
    `edges` are two edges of a triangle from one corner: x, y, u, v of the first, then of the second.
    """
    dx1, dy1, du1, dv1, dx2, dy2, du2, dv2 = edges
    width, height, count = textures[texture, 0], textures[texture, 1], textures[texture, 2]
    ux, uy = (du1 * dy2 - du2 * dy1) * width, (du2 * dx1 - du1 * dx2) * width
    vx, vy = (dv1 * dy2 - dv2 * dy1) * height, (dv2 * dx1 - dv1 * dx2) * height
    longest = max(ux * ux + vx * vx, uy * uy + vy * vy) / (area * area)
    level, limit = np.int64(0), 2.0
    while longest > limit and level < count - 1:
        level += 1
        limit *= 4.0
    return level


@part
def _plane(planes, n, at, a, b, c, frame):
    """Write the plane through the values a, b, c (f64) at the corners; `frame`: d(share of b, c) / d(x, y)."""
    bx, by, cx, cy = frame
    planes[n, at] = a
    planes[n, at + 1] = (b - a) * bx + (c - a) * cx
    planes[n, at + 2] = (b - a) * by + (c - a) * cy


@part
def _texel_row(texture, level, texels, wanted):
    """Return the row of a level's texels; where they are not there yet that is noted in `wanted`, and row 0 serves."""
    row = np.int64(texture) * LEVELS + level
    if texels[row, ADDRESS] == 0:
        wanted[row] = 1
        row = np.int64(0)
    return row


@helper
def _make_planes(n, faces, mesh, light, tables, buffers, wanted):
    """Work out the attributes of drawn triangle `n`, once."""
    ints, values, textures, texels = tables
    numbers, planes = buffers[3], buffers[4]
    normals, uvs, places, second_uv = mesh
    numbers[n, _READY] = 1
    draw, face = numbers[n, _DRAW], numbers[n, _FACE]
    kind = ints[draw, KIND]
    if kind == OUTLINE:
        return
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x0, y0 = places[i, 0], places[i, 1]
    dx1, dy1, dx2, dy2 = places[j, 0] - x0, places[j, 1] - y0, places[k, 0] - x0, places[k, 1] - y0
    area = dx1 * dy2 - dx2 * dy1
    frame = (dy2 / area, -dx2 / area, -dy1 / area, dx1 / area)
    planes[n, 0], planes[n, 1] = x0, y0
    numbers[n, _TEXELS] = -1
    texture = ints[draw, TEXTURE]
    if texture >= 0:
        u0, v0 = np.float64(uvs[i, 0]), np.float64(uvs[i, 1])
        du1, dv1 = uvs[j, 0] - u0, uvs[j, 1] - v0
        du2, dv2 = uvs[k, 0] - u0, uvs[k, 1] - v0
        level = _level((dx1, dy1, du1, dv1, dx2, dy2, du2, dv2), area, texture, textures)
        row = _texel_row(texture, level, texels, wanted)
        numbers[n, _TEXELS] = row
        width, height = np.float64(texels[row, WIDTH]), np.float64(texels[row, HEIGHT])
        u0, v0 = (u0 - floor(u0)) * width - 0.5, (v0 - floor(v0)) * height - 0.5
        _plane(planes, n, _U, u0, u0 + du1 * width, u0 + du2 * width, frame)
        _plane(planes, n, _V, v0, v0 + dv1 * height, v0 + dv2 * height, frame)
    if kind == PHONG_BODY:
        for c in range(3):
            a, b, d = np.float64(normals[i, c]), np.float64(normals[j, c]), np.float64(normals[k, c])
            _plane(planes, n, _A + 3 * c, a, b, d, frame)
        return
    mode = ints[draw, SPHERE_MODE]
    if mode:
        if mode == 3:
            s0, t0, s1, t1 = second_uv[i, 0], second_uv[i, 1], second_uv[j, 0], second_uv[j, 1]
            s2, t2 = second_uv[k, 0], second_uv[k, 1]
        else:
            s0, t0 = _FHALF + _FHALF * normals[i, 0], _FHALF - _FHALF * normals[i, 1]
            s1, t1 = _FHALF + _FHALF * normals[j, 0], _FHALF - _FHALF * normals[j, 1]
            s2, t2 = _FHALF + _FHALF * normals[k, 0], _FHALF - _FHALF * normals[k, 1]
        a, b = np.float64(s0), np.float64(t0)
        du1, dv1, du2, dv2 = s1 - a, t1 - b, s2 - a, t2 - b
        texture = ints[draw, SPHERE]
        level = _level((dx1, dy1, du1, dv1, dx2, dy2, du2, dv2), area, texture, textures)
        row = _texel_row(texture, level, texels, wanted)
        numbers[n, _SPHERE_TEXELS] = row
        width, height = np.float64(texels[row, WIDTH]), np.float64(texels[row, HEIGHT])
        a, b = a * width - 0.5, b * height - 0.5
        _plane(planes, n, _A, a, a + du1 * width, a + du2 * width, frame)
        _plane(planes, n, _B, b, b + dv1 * height, b + dv2 * height, frame)
    toon = ints[draw, TOON]
    shiny = ints[draw, SPECULAR]
    if toon < 0 and not shiny:
        return
    a, b, c = _step(normals, i, light), _step(normals, j, light), _step(normals, k, light)
    if toon >= 0:
        height = np.float64(texels[toon * LEVELS, HEIGHT])
        _plane(planes, n, _C, a * height - 0.5, b * height - 0.5, c * height - 0.5, frame)
    if shiny:
        power = np.float64(values[draw, SHINE + 3])
        a, b = _shine(normals, i, light, power), _shine(normals, j, light, power)
        c = _shine(normals, k, light, power)
        for channel in range(3):
            scale = np.float64(values[draw, SHINE + channel])
            _plane(planes, n, _S + 3 * channel, scale * a, scale * b, scale * c, frame)


@part
def _step(normals, v, light):
    """Where on the toon ramp a vertex is."""
    return 0.5 - 0.5 * (normals[v, 0] * light[0] + normals[v, 1] * light[1] + normals[v, 2] * light[2])


@part
def _shine(normals, v, light, power):
    """A vertex's highlight."""
    cosine = normals[v, 0] * light[3] + normals[v, 1] * light[4] + normals[v, 2] * light[5]
    return _power(min(max(cosine, 0.0), 1.0), power) if power > 0.0 else 0.0


@kernel
def draw_faces(faces, draws, solid, clear, mesh, light, window, tables, buffers, wanted):
    """Draw triangles in order into `window` (first column, row, end column, row in samples, from the top left)."""
    _, uvs, places, _ = mesh
    ints, values, textures, _ = tables
    depths, owners, colors, numbers, _, ends = buffers
    first_x, first_y, end_x, end_y = window
    span_address = np.uint64(ends.ctypes.data)
    stride = depths.shape[1]
    depth_address, owner_address = np.uint64(depths.ctypes.data), np.uint64(owners.ctypes.data)
    for y in range(first_y, end_y):
        for x in range(first_x, end_x):
            depths[y, x] = 1 << 24
            owners[y, x] = _EMPTY
    n = np.int64(-1)
    for face in range(len(faces)):
        draw = draws[face]
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        ax, ay, az = places[i, 0], places[i, 1], places[i, 2]
        bx, by, bz = places[j, 0], places[j, 1], places[j, 2]
        cx, cy, cz = places[k, 0], places[k, 1], places[k, 2]
        dx1, dy1, dx2, dy2 = bx - ax, by - ay, cx - ax, cy - ay
        area = dx1 * dy2 - dx2 * dy1  # rows count down: clockwise, the front, is positive
        cull = ints[draw, CULL]
        if not (area > 0 or area < 0) or (area > 0 and cull == CULL_FRONT) or (area < 0 and cull == CULL_BACK):
            continue
        y0 = max(ceil(min(ay, by, cy) - 0.5), np.float64(first_y))
        y1 = min(ceil(max(ay, by, cy) - 0.5), np.float64(end_y))
        x0 = max(ceil(min(ax, bx, cx) - 0.5), np.float64(first_x))
        x1 = min(ceil(max(ax, bx, cx) - 0.5), np.float64(end_x))
        if not (y0 < y1 and x0 < x1):
            continue
        blend = ints[draw, BLEND]
        if blend and ints[draw, KIND] == OUTLINE:
            if ints[draw, MORPHED] and values[draw, DIFFUSE + 3] < _INVISIBLE:
                continue  # a part that a morph hides takes its outline along
            if values[draw, EDGE + 3] >= _F1:
                blend = 0
        elif blend:
            level = 0
            texture = ints[draw, TEXTURE]
            if texture >= 0:
                u0, v0 = np.float64(uvs[i, 0]), np.float64(uvs[i, 1])
                du1, dv1, du2, dv2 = uvs[j, 0] - u0, uvs[j, 1] - v0, uvs[k, 0] - u0, uvs[k, 1] - v0
                level = _level((dx1, dy1, du1, dv1, dx2, dy2, du2, dv2), area, texture, textures)
            if clear[face] >= level or values[draw, DIFFUSE + 3] < _INVISIBLE:
                continue
            if solid[face] >= level and values[draw, DIFFUSE + 3] > _SOLID and not ints[draw, HIDES]:
                blend = 0
        n += 1
        numbers[n, _DRAW], numbers[n, _FACE], numbers[n, _READY], numbers[n, _FRONT] = draw, face, 0, area > 0
        slope = ((bz - az) * dy2 - (cz - az) * dy1) / area
        fall = ((cz - az) * dx1 - (bz - az) * dx2) / area
        # Corners from the top down; both triangles of an edge see it in this order, hence leave no gap.
        tx, ty, mx, my, lx, ly = ax, ay, bx, by, cx, cy
        if ty > my:
            tx, ty, mx, my = mx, my, tx, ty
        if my > ly:
            mx, my, lx, ly = lx, ly, mx, my
        if ty > my:
            tx, ty, mx, my = mx, my, tx, ty
        long = (lx - tx) / (ly - ty)
        upper = (mx - tx) / (my - ty) if my > ty else 0.0
        lower = (lx - mx) / (ly - my) if ly > my else 0.0
        middle_right = (mx - tx) * (ly - ty) > (lx - tx) * (my - ty)
        bottom = int(y1)
        for y in range(int(y0), bottom):
            place = (y - int(y0)) % ROWS
            if place == 0:
                spans(span_address, y, (tx, ty, mx, my, long, upper, lower), middle_right, (x0, x1))
            left, right = np.int64(ends[0, place]), np.int64(ends[1, place])
            if left >= right:
                continue
            py = y + 0.5
            # The depth at the middle of sample x is z + slope x; half a step for rounding.
            z = az + fall * (py - ay) - slope * (ax - 0.5) + 0.5
            if not blend:
                x = left
                at = np.uint64((y * stride + x) * 4)
                while x < right:
                    cover(depth_address + at, owner_address + at, x, right - x, z, slope, n)
                    at += np.uint64(32)
                    x += 8
                continue
            for x in range(left, right):
                depth = np.int32(min(max(z + slope * x, 0.0), 16777216.0))
                if depth > depths[y, x]:
                    continue
                if not numbers[n, _READY]:
                    _make_planes(n, faces, mesh, light, tables, buffers, wanted)
                px, py32 = np.float32(x) + _FHALF, np.float32(y) + _FHALF
                r, g, b, alpha = _shade(n, px, py32, _OVER, tables, buffers)
                if alpha < _INVISIBLE:
                    continue
                depths[y, x] = depth
                under = np.int64(owners[y, x])
                if alpha < _F1 and under != _EMPTY:
                    if under >= 0:
                        if not numbers[under, _READY]:
                            _make_planes(under, faces, mesh, light, tables, buffers, wanted)
                        ur, ug, ub, ua = _shade(under, px, py32, _OPAQUE, tables, buffers)
                    else:
                        ur, ug, ub, ua = colors[y, x, 0], colors[y, x, 1], colors[y, x, 2], colors[y, x, 3]
                    rest = _F1 - alpha
                    r, g, b, alpha = r + ur * rest, g + ug * rest, b + ub * rest, alpha + ua * rest
                owners[y, x] = _COLOURED
                colors[y, x, 0], colors[y, x, 1], colors[y, x, 2], colors[y, x, 3] = r, g, b, alpha


@kernel
def resolve(faces, mesh, light, box, grid, tables, buffers, wanted, codes, borders, picture):
    """Average the samples of the pixels in `box` (first column, row, end column, row) into `picture` u8 [H, W, 4].
    What is not shaded yet is shaded now, the samples of one triangle in a pixel together. `grid` is (samples a side,
    cells i64 [g, 4, 2], offsets f32 [g, 2, 4]): the samples of a pixel in groups of four, by column and row, and the
    same plus 1/2. `codes` u8 [CODES + 1] and `borders` f32 [CODES + 1] encode linear light.
    """
    ints, values, _, texels = tables
    _, owners, colors, numbers, planes, _ = buffers
    first_x, first_y, end_x, end_y = box
    side, cells, offsets = grid
    share = _F1 / np.float32(side * side)
    plane_address, value_address = np.uint64(planes.ctypes.data), np.uint64(values.ctypes.data)
    for row in range(first_y, end_y):
        for column in range(first_x, end_x):
            x, y = column * side, row * side
            r = g = b = alpha = _F0
            for group in range(len(cells)):
                one = owners[y + cells[group, 0, 1], x + cells[group, 0, 0]]
                two = owners[y + cells[group, 1, 1], x + cells[group, 1, 0]]
                three = owners[y + cells[group, 2, 1], x + cells[group, 2, 0]]
                four = owners[y + cells[group, 3, 1], x + cells[group, 3, 0]]
                left = (1 << min(4, side * side - 4 * group)) - 1  # a bit for each sample that is still to come
                if one == _EMPTY and one == two and one == three and one == four:
                    continue
                while left:
                    owner = one if left & 1 else two if left & 2 else three if left & 4 else four
                    mask = left & (
                        int(one == owner) | int(two == owner) << 1 | int(three == owner) << 2 | int(four == owner) << 3
                    )
                    left ^= mask
                    if owner == _EMPTY:
                        continue
                    n = np.int64(owner)
                    if n >= 0:
                        if not numbers[n, _READY]:
                            _make_planes(n, faces, mesh, light, tables, buffers, wanted)
                        draw = np.int64(numbers[n, _DRAW])
                        if ints[draw, KIND] == PHONG_BODY and not ints[draw, SPECULAR]:
                            texel = np.int64(max(numbers[n, _TEXELS], 0))  # row 0 is white
                            sr, sg, sb = shade_phong(
                                plane_address + np.uint64(n * (PLANES * 4)),
                                value_address + np.uint64(draw * (VALUES * 4)),
                                (texels[texel, ADDRESS], texels[texel, WIDTH], texels[texel, HEIGHT]),
                                np.float32(x),
                                np.float32(y),
                                np.uint64(offsets.ctypes.data) + np.uint64(group * 32),
                                mask,
                                np.int64(numbers[n, _FRONT]),
                            )
                            count = (mask & 1) + ((mask >> 1) & 1) + ((mask >> 2) & 1) + (mask >> 3)
                            r, g, b, alpha = r + sr, g + sg, b + sb, alpha + np.float32(count)
                            continue
                    for lane in range(4):
                        if not (mask >> lane) & 1:
                            continue
                        sx, sy = x + cells[group, lane, 0], y + cells[group, lane, 1]
                        if n >= 0:
                            px, py = np.float32(sx) + _FHALF, np.float32(sy) + _FHALF
                            sr, sg, sb, sa = _shade(n, px, py, _OPAQUE, tables, buffers)
                        else:
                            sr, sg, sb, sa = colors[sy, sx, 0], colors[sy, sx, 1], colors[sy, sx, 2], colors[sy, sx, 3]
                        r, g, b, alpha = r + sr, g + sg, b + sb, alpha + sa
            opacity = alpha * share
            if opacity < _INVISIBLE:
                picture[row, column, 0] = picture[row, column, 1] = picture[row, column, 2] = 0
                picture[row, column, 3] = 0
                continue
            picture[row, column, 0] = _encoded(r / alpha, codes, borders)
            picture[row, column, 1] = _encoded(g / alpha, codes, borders)
            picture[row, column, 2] = _encoded(b / alpha, codes, borders)
            picture[row, column, 3] = np.uint8(min(opacity, _F1) * _BYTE + _FHALF)


@part
def _encoded(value, codes, borders):
    """Return the byte whose light is nearest: a cell of the table holds one border between two codes at most."""
    value = min(max(value, _F0), _F1)
    cell = np.uint32(value * np.float32(CODES))
    return codes[cell] + np.uint8(value >= borders[cell])
