"""What a kernel costs on a device: the roofline, measured tables, and the model over both."""
