"""Commands as people call them: installing, listing."""
