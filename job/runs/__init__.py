"""What a run is: its folder, its settings, its state, and the list of all."""
