"""Codes: weights as few levels, fitted plainly or with error feedback."""
