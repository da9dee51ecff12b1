"""Fitted probes in files."""

from dataclasses import replace
from pathlib import Path

import torch

from online.probing.kept import KeptProbe, KeptProbes, load_probes, model_key, save_probes
from setcon.config import ProbeConfig, SetConConfig
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe


def test_a_probe_that_was_kept_suits_the_footage_and_the_weights_it_was_fitted_on(
    tmp_path: Path,
) -> None:
    model, config = SetCon(SetConConfig()), ProbeConfig()
    probe = DecoderProbe(config.decoder, slot_size=16, image_size=(16, 16), whitening=None)
    kept = KeptProbe("footage", FittedProbe(probe.eval(), 0.1), model_key(model))
    for found, bound in ((kept, True), (replace(kept, model=None), False)):
        save_probes(tmp_path, KeptProbes(trained=found))
        again = load_probes(tmp_path, config, device=torch.device("cpu")).trained
        assert again is not None
        assert again.suits("footage", model)
        assert not again.suits("other footage", model)
        weight = next(model.parameters())
        with torch.no_grad():
            weight += 1
            assert again.suits("footage", model) is not bound  # older files do not say whose
            weight -= 1
