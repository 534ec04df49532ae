"""One file per method; every file of this folder is found by itself (see ``holitom.registry``)."""
