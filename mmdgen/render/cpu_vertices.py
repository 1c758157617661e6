"""One pose's vertices for the CPU rasteriser: morphs, skinning, places in the picture. The sums of model.vert.glsl.

A module of kernels calls none of another module: numba keeps compiled code as long as the file itself does not change.
"""

from __future__ import annotations

from math import floor, sqrt

import numpy as np

from mmdgen.render.cpu_jit import kernel, part

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
SUBPIXEL = 256.0  # vertices lie on a grid of so many places a sample, as on GPUs


@part
def _sine(angle):
    """sin for angles between 0 and pi / 2, to 1e-9: Taylor's series."""
    square = angle * angle
    total, term = angle, angle
    for k in range(1, 8):
        term = -term * square / ((2.0 * k) * (2.0 * k + 1.0))
        total += term
    return total


@part
def _angle(sine, cosine):
    """The angle in [0, pi / 2] of this sine and cosine (of any common length): halved three times, then the series."""
    length = sqrt(sine * sine + cosine * cosine)
    tangent = sine / (length + cosine)  # of the half angle: at most 1
    for _ in range(2):
        tangent = tangent / (1.0 + sqrt(1.0 + tangent * tangent))
    square = tangent * tangent
    total, power = tangent, tangent
    for k in range(1, 9):
        power = -power * square
        total += power / (2.0 * k + 1.0)
    return 8.0 * total


@part
def _point(matrix, x, y, z, w):
    """Return the f32 [3, 4] `matrix` times (x, y, z, w)."""
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3] * w,
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3] * w,
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3] * w,
    )


@part
def _rotated(qx, qy, qz, qw, x, y, z):
    tx, ty, tz = _TWO * (qy * z - qz * y), _TWO * (qz * x - qx * z), _TWO * (qx * y - qy * x)
    return (
        x + qw * tx + (qy * tz - qz * ty),
        y + qw * ty + (qz * tx - qx * tz),
        z + qw * tz + (qx * ty - qy * tx),
    )


@part
def _between(a, b, t):
    """Return the quaternion at `t` of the way from `a` to `b` (f32 [4] xyzw) on the sphere, f64."""
    ax, ay, az, aw = np.float64(a[0]), np.float64(a[1]), np.float64(a[2]), np.float64(a[3])
    bx, by, bz, bw = np.float64(b[0]), np.float64(b[1]), np.float64(b[2]), np.float64(b[3])
    cosine = ax * bx + ay * by + az * bz + aw * bw
    if cosine < 0:
        bx, by, bz, bw, cosine = -bx, -by, -bz, -bw, -cosine
    sx, sy, sz, sw = bx - cosine * ax, by - cosine * ay, bz - cosine * az, bw - cosine * aw
    sine = sqrt(sx * sx + sy * sy + sz * sz + sw * sw)
    if sine < 1e-4:
        first, second = 1.0 - t, t
    else:
        angle = _angle(sine, cosine)
        first, second = _sine((1.0 - t) * angle), _sine(t * angle)
    x, y, z, w = first * ax + second * bx, first * ay + second * by, first * az + second * bz, first * aw + second * bw
    length = sqrt(x * x + y * y + z * z + w * w)
    return np.float32(x / length), np.float32(y / length), np.float32(z / length), np.float32(w / length)


@part
def _cell(length, scale):
    """Return a length MU in samples, on the grid of vertices."""
    return floor(length * scale * SUBPIXEL + 0.5) / SUBPIXEL


@kernel
def pose_vertices(vertices, groups, weights, frame, posed, normals, uvs, places, hulls):
    """Move all vertices of a model.

    `vertices` is `CpuVertices`; `groups` (matrices f32 [G, 3, 4], quaternions f32 [G, 4]), `weights` f32 [C] of the
    morph parameters; `frame` f64 [6]: left and top MU, samples a MU, least depth MU, depth steps a MU, push of an edge
    of size 1 MU. Results: `posed` f32 [v, 3] MU, `normals` f32 [v, 3] (not made unit length), `uvs` f32 [v, 2],
    `places` f64 [v, 3] (samples from the left and the top; depth steps), `hulls` f32 [v, 3] MU: what an edge of size 1
    adds; left alone where the push is 0.
    """
    position, normal, uv, group, weight, edge, morph_slot, morphs, sdef_slot, sdef = vertices
    matrices, quaternions = groups
    columns = len(weights)
    for v in range(len(position)):
        x, y, z = position[v, 0], position[v, 1], position[v, 2]
        s, t = uv[v, 0], uv[v, 1]
        slot = morph_slot[v]
        if slot >= 0:
            for column in range(columns):
                share = weights[column]
                x += share * morphs[slot, column, 0]
                y += share * morphs[slot, column, 1]
                z += share * morphs[slot, column, 2]
                s += share * morphs[slot, column, 3]
                t += share * morphs[slot, column, 4]
        nx, ny, nz = normal[v, 0], normal[v, 1], normal[v, 2]
        row = sdef_slot[v]
        if row >= 0:
            a, b = group[v, 0], group[v, 1]
            qx, qy, qz, qw = _between(quaternions[a], quaternions[b], np.float64(weight[v, 1]))
            px, py, pz = _rotated(qx, qy, qz, qw, x - sdef[row, 0, 0], y - sdef[row, 0, 1], z - sdef[row, 0, 2])
            for k in range(2):
                share = weight[v, k]
                mx, my, mz = _point(
                    matrices[group[v, k]], sdef[row, k + 1, 0], sdef[row, k + 1, 1], sdef[row, k + 1, 2], _ONE
                )
                px += share * mx
                py += share * my
                pz += share * mz
            nx, ny, nz = _rotated(qx, qy, qz, qw, nx, ny, nz)
        elif weight[v, 0] == _ONE and group[v, 0] == 0:  # never moves
            px, py, pz = x, y, z
        else:
            px = py = pz = mx = my = mz = _ZERO
            for k in range(4):
                share = weight[v, k]
                if share != _ZERO:
                    matrix = matrices[group[v, k]]
                    ax, ay, az = _point(matrix, x, y, z, _ONE)
                    bx, by, bz = _point(matrix, nx, ny, nz, _ZERO)
                    px += share * ax
                    py += share * ay
                    pz += share * az
                    mx += share * bx
                    my += share * by
                    mz += share * bz
            nx, ny, nz = mx, my, mz
        posed[v, 0], posed[v, 1], posed[v, 2] = px, py, pz
        normals[v, 0], normals[v, 1], normals[v, 2] = nx, ny, nz
        uvs[v, 0], uvs[v, 1] = s, t
        places[v, 0] = _cell(px - frame[0], frame[2])
        places[v, 1] = _cell(frame[1] - py, frame[2])
        places[v, 2] = (pz - frame[3]) * frame[4]
        if frame[5] > 0:
            length = sqrt(np.float64(nx * nx + ny * ny + nz * nz))
            push = frame[5] * edge[v] / length if length > 1e-20 else 0.0
            hulls[v, 0], hulls[v, 1], hulls[v, 2] = (
                np.float32(nx * push),
                np.float32(ny * push),
                np.float32(nz * push),
            )


@kernel
def hull_places(posed, hulls, vertex, draw, size, frame, places, first):
    """Write where the outlines' vertices lie to `places` from row `first` on: vertices `vertex` u32 [h], each moved out
    by its draw's edge size, column `size[0]` of row `draw` i32 [h] of `size[1]` f32 [n, VALUES]."""
    column, values = size
    for number in range(len(vertex)):
        v, share = vertex[number], values[draw[number], column]
        x = posed[v, 0] + hulls[v, 0] * share
        y = posed[v, 1] + hulls[v, 1] * share
        z = posed[v, 2] + hulls[v, 2] * share
        row = first + number
        places[row, 0] = _cell(x - frame[0], frame[2])
        places[row, 1] = _cell(frame[1] - y, frame[2])
        places[row, 2] = (z - frame[3]) * frame[4]
