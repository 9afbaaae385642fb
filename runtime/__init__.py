"""Sessions, timing and the storage of what runs on a device."""
