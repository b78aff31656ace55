"""The architectures of the ten, as torch modules; loaded where a network is built."""
