"""Catalogue and splits, plan, one shard, resume, engines: from models to a dataset."""
