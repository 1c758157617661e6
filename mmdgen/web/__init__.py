"""The annotators: a local web page on which people check head bounds and eye and mouth morphs."""
