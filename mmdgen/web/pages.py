"""Files of a page: which ones are served, how they are read, and what is answered when something is wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

STATIC = Path(__file__).resolve().parent / "static"
Files = Mapping[str, tuple[Path, str]]  # name -> file and content type
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


def static_files(folder: Path = STATIC) -> dict[str, tuple[Path, str]]:
    """Return the files that are served, by name, with their content types: no links, no folders, no other endings."""
    return {
        path.name: (path, _TYPES[path.suffix])
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES and path.is_file() and not path.is_symlink()
    }


async def file_response(files: Files, name: str) -> Response:
    """Return the answer with a file; 404 for a name that is not among them, and for a file that is gone."""
    found = files.get(name)
    if found is None:
        return PlainTextResponse("There is no such file.\n", 404)
    path, kind = found
    try:
        content = await asyncio.to_thread(_read_plain, path)
    except OSError:
        return PlainTextResponse("This file cannot be read.\n", 404)
    return Response(content, media_type=None, headers={"content-type": kind})


async def failed(request: Request, error: Exception) -> Response:
    """Answer a request that a bug ended."""
    return PlainTextResponse("Something went wrong on the server.\n", 500)


async def http_error(request: Request, error: Any) -> Response:
    """Answer a request for what is not there."""
    texts = {404: "There is no such page.\n", 405: "Only GET is answered.\n"}
    return PlainTextResponse(texts.get(error.status_code, "This request is not answered.\n"), error.status_code)


def _read_plain(path: Path) -> bytes:
    """Read a file, but not through a link that was put in its place."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as stream:
        return stream.read()
