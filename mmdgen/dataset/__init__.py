"""Shards, manifest, reader, verification. Knows nothing of MMD."""
