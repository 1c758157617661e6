"""Bytes <-> file records. Every format has a reader and a writer; numpy is the only library used here."""
