"""Enforcement: for every API a guard, which stands before its handler and decides what the handler gets to see.

A guard takes from a request what the caller may not do, lets the handler answer the rest, and adds the refusals; or it
takes from the answer what the caller may not see. Which operation on what each API needs, and with which code it is
refused, is Kafka's. Handlers know nothing of it. An API without a guard is not served (`table.py`). Produce and Fetch
are the exception: they ask for themselves, where they find their topics.
"""
