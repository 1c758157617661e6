"""Procedural anime characters, written as real PMX files with PNG textures."""
