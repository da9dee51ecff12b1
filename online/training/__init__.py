"""The learner: batches, augmentation, the optimizer's steps, and what warns that it fails."""
