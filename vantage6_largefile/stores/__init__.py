"""Store drivers behind one small protocol."""
