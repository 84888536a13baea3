"""Weight files of other libraries turned into model files: read safely, matched by structure, every entry told.

`weightfile` reads a file to named tensors, `tables` says how a source's names become ours, `catalogue` which networks
have which origins with which preprocessing, `matching` accounts for every entry, `importer` makes the model file.
"""
