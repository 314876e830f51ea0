"""Coordinators: leased slots with fencing epochs, and the decide → persist → evolve → reply runtime."""
