"""The same request frames to Apache Kafka and to Penstock, and what of the answers is not the same.

    sequences/*.yaml, generated.py ──► sequences.py ──► running.py ──► flat answers of each broker
                                                          │               │
                                     messages.py, batches.py          normalising.py
                                                                          │
                              differences.yaml ──► judging.py ◄───────────┘ ──► page.py

A sequence is a list of requests with names instead of ids. Each broker gets it over connections of its own; what a
broker gave (ids, epochs) is put into its later requests. Both run at the same time, several sequences beside each
other. An answer is compared as a mapping from paths to values.
"""
