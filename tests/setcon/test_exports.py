import subprocess
import sys

from signatures import unexported

import setcon


def test_public_names_are_these():
    assert setcon.__all__ == sorted(setcon.__all__)
    assert all(hasattr(setcon, name) for name in setcon.__all__)


def test_every_public_name_has_a_home_and_is_listed():
    assert sorted(setcon._HOMES) == dir(setcon) == setcon.__all__


def test_what_public_calls_take_and_return_is_public():
    built = {name for name in setcon.__all__ if name.endswith("Config")}
    assert unexported(setcon, built=built) == ["load: TrainedRun"]  # which `online` exports


def test_import_brings_nothing_and_the_model_torch_and_nothing_else_of_the_project():
    heavy = ["av", "zarr", "h5py", "zmq", "matplotlib", "scipy", "ingest", "online"]
    code = (
        "import sys, setcon; assert 'torch' not in sys.modules; setcon.SetCon; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "[]"


def test_every_error_is_a_setcon_error():
    assert issubclass(setcon.SeedCheckpointError, setcon.SetConError)
    assert issubclass(setcon.SeedCheckpointError, ValueError)
