"""What is seen again: buffers of clips, and how often each is trained on."""
