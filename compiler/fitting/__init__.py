"""Fitting: what layers read, and the terms that are nearest in it."""
