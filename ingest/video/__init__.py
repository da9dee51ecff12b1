"""Files to frames: the readers, what a source is, masks, and video files written."""
