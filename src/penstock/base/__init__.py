"""The lowest layer: errors, clock, randomness, options, settings. Imports no other package of the project."""
