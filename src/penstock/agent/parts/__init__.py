"""The parts of an agent: each is built in one place, from those that were built before it."""
