"""Penstock: serverless Kafka that anyone can run."""
