"""Tasks, templates and the way from a fused graph to a native program."""
