"""What a device can do and what it costs."""
