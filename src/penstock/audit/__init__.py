"""The audit log: authentications, authorization decisions and administrative changes, as events in a topic."""
