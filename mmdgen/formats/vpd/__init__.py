"""VPD, the pose format of MikuMikuDance: a text file of bone poses and, by MikuMikuMoving, morph weights."""

from mmdgen.formats.vpd.reader import read_vpd
from mmdgen.formats.vpd.records import VpdBone, VpdFile, VpdMorph
from mmdgen.formats.vpd.writer import write_vpd

__all__ = ["VpdBone", "VpdFile", "VpdMorph", "read_vpd", "write_vpd"]
