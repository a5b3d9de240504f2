"""Training: data order, augmentation, losses and the resumable loop. Needs torch."""
