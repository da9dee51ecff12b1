"""What can go wrong between a store and a trained model.

OnlineError
├── ConfigError           a configuration that does not hold together (also a ValueError)
├── AddressError          an address that this program does not bind or connect to
│   └── AddressInUse      another server is bound to the address
├── KeyFileError          keys that are missing, readable by others, or not keys at all
├── WireError             a message that is malformed
├── ServerError           a server refused, failed or could not be started
│   └── ServerSilent      nothing came from the server in the time allowed (also a TimeoutError)
├── ReplayError           the replay buffer was used out of turn
├── CheckpointError       a checkpoint that cannot be written or read
│   └── CheckpointDamaged  its files are cut short, garbled or gone
├── TrainingError         training cannot go on
│   └── Diverged          the loss, a gradient or a weight is NaN or infinite
├── RankLost              another process of the run has ended
├── FootageError          too little footage to train or score on
└── RunError              a run directory that cannot be used

Every message is one line: what, where, the value found, and the remedy.
"""

from ingest.printable import one_line


class OnlineError(Exception):
    """Anything a user can fix; the message is one line, whatever names and values it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(OnlineError, ValueError):
    """A configuration that does not hold together."""


class AddressError(OnlineError):
    """An address that this program does not bind or connect to."""


class AddressInUse(AddressError):  # noqa: N818 - reads as what it is
    """Another server is bound to the address."""


class KeyFileError(OnlineError):
    """Keys that are missing, readable by others, or not keys at all."""


class WireError(OnlineError):
    """A message that is malformed."""


class MessageDamaged(WireError):  # noqa: N818 - reads as what it is
    """A message was changed on its way: asking again helps."""


class ServerError(OnlineError):
    """A server refused, failed or could not be started; the message is the server's own."""


class ServerSilent(ServerError, TimeoutError):  # noqa: N818
    """Nothing came from the server in the time allowed."""


class ReplayError(OnlineError):
    """The replay buffer was used out of turn."""


class CheckpointError(OnlineError):
    """A checkpoint that cannot be written or read."""


class CheckpointDamaged(CheckpointError):  # noqa: N818
    """A checkpoint whose files are cut short, garbled or gone."""


class TrainingError(OnlineError):
    """Training cannot go on."""


class Diverged(TrainingError):  # noqa: N818
    """The loss, a gradient or a weight is NaN or infinite."""


class RankLost(OnlineError):  # noqa: N818 - reads as what it is
    """Another process of a run that several learn together has ended."""


class FootageError(OnlineError):
    """Too little footage to train or score on."""


class RunError(OnlineError):
    """A run directory that cannot be used."""
