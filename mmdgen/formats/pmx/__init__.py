"""PMX 2.0 and 2.1, the model format of MikuMikuDance."""
