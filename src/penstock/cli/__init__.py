"""The command line. Knows only base and wire: whatever it says about a cluster it asked for over the Kafka protocol.
But for `up`, which starts an agent, and for what is done to a data directory on which none runs (`agent/offline.py`).

Where things are: `main` is the tree of commands, loaded lazily; one file per command or command group beside it;
`output` renders every result; `kafka/` is a small synchronous Kafka client without any terminal in it; `texts` are the
pure rules of what people type and read (addresses, positions in a log, format strings).
"""
