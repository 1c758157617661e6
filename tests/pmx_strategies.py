"""Hypothesis strategies for PMX files of all kinds."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st
from pmx_build import build_pmx, cut_sections

from mmdgen.formats.pmx import records as pmx


@st.composite
def headers(draw: st.DrawFn) -> pmx.PmxHeader:
    """Every header that the format allows."""
    size = st.sampled_from((1, 2, 4))
    return pmx.PmxHeader(
        version=draw(st.sampled_from((2.0, 2.1))),
        encoding=draw(st.sampled_from(("utf-16-le", "utf-8"))),
        additional_uv_count=draw(st.integers(0, 4)),
        vertex_index_size=draw(size),
        texture_index_size=draw(size),
        material_index_size=draw(size),
        bone_index_size=draw(size),
        morph_index_size=draw(size),
        body_index_size=draw(size),
        signature=b"PMX" + draw(st.binary(min_size=1, max_size=1)),
        extra_globals=draw(st.binary(max_size=3)),
    )


@st.composite
def pmx_files(draw: st.DrawFn) -> pmx.PmxFile:
    """Files of all kinds, also with missing last sections and with a tail."""
    file = build_pmx(
        draw(st.integers(0, 2**32)),
        draw(headers()),
        vertices=draw(st.integers(0, 12)),
        kinds=tuple(draw(st.sets(st.integers(0, 4), min_size=1))),
        records=draw(st.integers(0, 2)),
        wild=draw(st.booleans()),
    )
    complete = 4 if file.header.version > 2.0 else 3
    sections = draw(st.integers(0, complete))
    if sections < complete:
        return cut_sections(file, sections)
    return dataclasses.replace(file, tail=draw(st.binary(max_size=5)))
