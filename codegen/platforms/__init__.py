"""What is special about each processor family: one file per platform, as data that the rest of the code consumes."""
