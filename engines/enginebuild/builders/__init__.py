"""One module a builder: it fills a folder with an engine's files, and installs nothing."""
