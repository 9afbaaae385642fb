"""Factors: low-rank and Tucker-2 products."""
