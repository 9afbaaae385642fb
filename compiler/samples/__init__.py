"""Samples: inputs given for calibration, or made where none are given."""
