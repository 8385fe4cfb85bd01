"""Beside the command line: what tries policies out before they meet users."""
