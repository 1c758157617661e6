"""One in-memory `Model` whatever the file was: skeleton, sparse morphs, materials, textures, diagnostics."""
