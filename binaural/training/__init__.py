"""What `train.py` is made of: options, batches, checkpoints, the log and the pictures."""
