"""Frozen parameters: those that require no gradient, such as a pretrained encoder's.

They come with the code that builds a model. Whatever saves what was learned leaves them out.
"""

from torch import Tensor, nn


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them is trained."""
    if next(module.parameters(), None) is None:
        return False
    return not any(parameter.requires_grad for parameter in module.parameters())


def keep_frozen_in_evaluation(model: nn.Module) -> None:
    """Put every frozen part of a model, with all its modules, into evaluation mode."""
    for module in model.modules():
        if module.training and is_frozen(module):
            module.eval()


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters, and without the buffers of frozen parts.

    Its tensors are those of the model, not copies.
    """
    left_out = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    for prefix, module in model.named_modules(remove_duplicate=False):
        if is_frozen(module):
            left_out |= {name for name, _ in module.named_buffers(prefix=prefix)}
    return {name: value for name, value in model.state_dict().items() if name not in left_out}
