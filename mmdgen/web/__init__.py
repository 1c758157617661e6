"""Local web pages: the annotators, on which people check head bounds and morphs, and the live poser."""
