"""Writing: the model file, the artifact around it, and the page that explains it."""
