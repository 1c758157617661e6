"""The only package that draws: context, upload, batched renderer, shaders."""
