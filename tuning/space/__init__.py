"""What a sweep searches, and how the next settings are picked."""
