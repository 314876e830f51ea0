"""Quotas of users, clients and addresses, measured and enforced as in Apache Kafka."""
