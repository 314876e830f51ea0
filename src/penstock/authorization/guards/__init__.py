"""Enforcement: a guard for every API, wrapped around its handler.

A guard removes from a request what the caller may not do, passes the rest to the handler, and adds a denial for each
removed item to the response; or it removes from the response what the caller may not see. The operations that each API
needs, and the error codes of its denials, are Kafka's. Handlers contain no authorization. An API without a guard is not
served (`table.py`). Produce and Fetch are the exception: they call the authorizer where they look up their topics.

Docstrings of guards name the error codes by number: 29 TOPIC_, 30 GROUP_, 31 CLUSTER_, 53 TRANSACTIONAL_ID_ and
65 DELEGATION_TOKEN_AUTHORIZATION_FAILED.
"""
