"""Looks inside trained networks, one file a method: what layers answer, what happens without them, what is near what.

Every function takes a network (`nn.Module`) and leaves it as it was, also after an exception: its modules, modes,
statistics and hooks.
"""
