"""An S3 server of these tests, and stores in it."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "ingest" / "object_server.py"
_SPEC = importlib.util.spec_from_file_location("object_server", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
object_server = sys.modules["object_server"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(object_server)

ObjectServer = object_server.ObjectServer
