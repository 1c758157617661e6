"""VMD, the motion format of MikuMikuDance: keyframes of bones, morphs, camera, light, shadow and IK."""

from mmdgen.formats.vmd.reader import read_vmd
from mmdgen.formats.vmd.records import VmdFile
from mmdgen.formats.vmd.writer import write_vmd

__all__ = ["VmdFile", "read_vmd", "write_vmd"]
