"""Quotas of clients, users and addresses: who may do how much, measured and enforced as Apache Kafka does."""
