"""How slots come about: by learned starts that compete, or from objects that were found."""
