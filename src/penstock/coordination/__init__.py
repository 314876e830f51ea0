"""Coordinators: leased slots, fencing epochs, and the decide → persist → evolve → reply runner."""
