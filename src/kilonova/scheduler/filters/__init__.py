"""Filters: each says of every host whether a server may go there, and of one host why not."""
