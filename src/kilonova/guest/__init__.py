"""A tiny bootable guest, made in seconds from Debian packages: for demos and tests."""
