"""Compares this service's answers with the reference implementation's, operation by operation."""
