"""What a clip is, which there are in a store, and in which order a trainer gets them."""
