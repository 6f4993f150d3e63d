"""The client halves of the mechanisms: for backends that log in to a server, and for tests."""

from pysaslauthd.sasl.client.choice import NoMechanism, find, strongest
from pysaslauthd.sasl.client.credentials import Credentials, UnusableCredentials
from pysaslauthd.sasl.client.exchange import (
    ClientExchange,
    Mechanism,
    ServerNotGenuine,
    ServerRefused,
)

__all__ = [
    "ClientExchange",
    "Credentials",
    "Mechanism",
    "NoMechanism",
    "ServerNotGenuine",
    "ServerRefused",
    "UnusableCredentials",
    "find",
    "strongest",
]
