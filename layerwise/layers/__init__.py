"""Blocks that two or more papers use; they know no network."""
