"""Administration as Kafka clients ask for it: translation between messages and the services of the log.

No rules live here beyond those about the shape of a request. One file per area.
"""
