"""IceCube: neutrino candidates."""
