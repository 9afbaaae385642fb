"""Sparse forms: single weights, patterns, columns and filters."""
