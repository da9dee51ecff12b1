"""SetCon on the Hugging Face Hub, by the mixin of `huggingface_hub` (extra `hub`).

HubSetCon.of(model).save_pretrained("folder")     config.json, model.safetensors, README.md
HubSetCon.from_pretrained("folder")               or "user/name" on the Hub
"""

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

try:
    from huggingface_hub import PyTorchModelHubMixin
except ModuleNotFoundError as error:
    if error.name != "huggingface_hub":  # it is there, and lacks something itself
        raise
    raise ModuleNotFoundError(
        "setcon.hub needs huggingface_hub, which is not installed; run pip install -e '.[hub]'",
        name=error.name,
    ) from error

from setcon.config import SetConConfig
from setcon.model import SetCon


class HubSetCon(
    SetCon,
    PyTorchModelHubMixin,
    library_name="setcon",
    tags=["object-centric-learning", "slot-attention", "video"],
    paper_url="https://arxiv.org/abs/2011.10287",
):
    """A SetCon with `from_pretrained`, `save_pretrained` and `push_to_hub`."""

    def __init__(self, config: SetConConfig | dict[str, Any]) -> None:
        super().__init__(_config(SetConConfig, config) if isinstance(config, dict) else config)

    @classmethod
    def of(cls, model: SetCon) -> "HubSetCon":
        """A copy of `model` with its weights, in evaluation mode."""
        made = cls(config=model.config)
        made.load_state_dict(model.state_dict())
        return made.eval()

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **given: Any) -> "HubSetCon":
        """Refuse weights that are missing or unknown, which the mixin accepts by default."""
        return super()._from_pretrained(strict=strict, **given)


def _config(kind: type, table: dict[str, Any], *, within: str = "") -> Any:
    """A configuration from nested tables; the mixin fills flat ones only.

    Raises ValueError where a table has a setting that this version does not know.
    """
    types = get_type_hints(kind)
    unknown = sorted(table.keys() - {field.name for field in fields(kind)})
    if unknown:
        names = ", ".join(within + name for name in unknown)
        raise ValueError(
            f"config.json: unknown settings: {names}; remove them, or load the model with the "
            "version of setcon that saved it"
        )
    return kind(
        **{
            name: _config(types[name], value, within=f"{within}{name}.")
            if is_dataclass(types[name])
            else value
            for name, value in table.items()
        }
    )
