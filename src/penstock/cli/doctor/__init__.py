"""`penstock doctor`: looks at this machine. Probes look, verdicts judge; only the first touch anything."""
