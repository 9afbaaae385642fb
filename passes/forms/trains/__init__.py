"""Trains: tensor trains of convolutions and of matrices."""
