"""What everything else may rely on: errors, clock, randomness, identifiers. Imports nothing of ours."""
