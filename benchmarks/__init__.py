"""Penstock beside Apache Kafka on one machine, under one client. See README.md."""
