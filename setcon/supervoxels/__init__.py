"""Runs of frames cut into supervoxels, what the camera's motion does not explain, and objects.

frames ──supervoxels──▶ pieces that keep their identity through the run ──┐
       ──registration──▶ background's motion ──evidence──▶ what moves ────┴──▶ labels of pieces
pieces + the model's foreground ──objects──▶ one segment for each object
"""
