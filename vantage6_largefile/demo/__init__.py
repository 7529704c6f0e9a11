"""The demo: the whole system on one machine, and the parts of it that the end-to-end tests use too."""
