"""Kafka's administrative APIs of the log: translation between messages and the services of the log.

The only rules here are those about the shape of a request. One file per area.
"""
