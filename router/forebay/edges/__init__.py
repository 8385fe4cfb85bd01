"""All I/O. Edges translate foreign values and errors; they do not import each other."""
