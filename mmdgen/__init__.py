"""mmdgen: training data for *Talking Head Anime from a Single Image* from MikuMikuDance models."""

__version__ = "0.1.0"
