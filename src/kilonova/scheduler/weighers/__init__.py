"""Weighers: each says of every host how well a server would be there."""
