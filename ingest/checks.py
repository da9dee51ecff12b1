"""Checks of the values of a configuration; each raises ValueError with the rule and the value."""


def require(condition: bool, rule: str, value: object) -> None:
    """Raise ValueError with the rule and the value found, unless the condition holds."""
    if not condition:
        raise ValueError(f"{rule}, got {value}")
