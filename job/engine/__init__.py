"""What computes: the compiled steps, and the device they run on."""
