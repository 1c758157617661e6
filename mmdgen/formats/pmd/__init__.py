"""PMD, the model format of MikuMikuDance before PMX, with its extensions."""

from mmdgen.formats.pmd.reader import read_pmd
from mmdgen.formats.pmd.records import PmdFile
from mmdgen.formats.pmd.writer import write_pmd

__all__ = ["PmdFile", "read_pmd", "write_pmd"]
