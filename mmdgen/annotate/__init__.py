"""Head bounds and eye and mouth morphs of a model: found automatically, stored as JSON, overridden by people."""
