"""A real broker for the tests of programs that speak Kafka.

    from penstock.testing import Broker

    with Broker() as kafka:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

It is the same program as `penstock up`, in a thread of the test process: no container, no JVM, no fake, and any number
of them at the same time. With pytest, the fixtures `kafka_broker` and `kafka_session_broker` need no import (see
pytest_plugin.py).
"""

from penstock.testing.broker import Broker

__all__ = ["Broker"]
