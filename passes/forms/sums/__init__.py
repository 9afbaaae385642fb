"""Sums: several forms added up, fitted in turns or exactly."""
