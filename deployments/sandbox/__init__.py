"""Archive stand-ins on loopback: generated data, real protocols and file formats."""
