"""The views of a network, one file each: a method of `explain/` put into words, tables and pictures."""
