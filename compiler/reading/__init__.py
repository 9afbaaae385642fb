"""Reading: files, protos and torch modules become a Model, or one clear error."""
