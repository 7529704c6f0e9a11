"""The command line: ``v6-largefile``."""
