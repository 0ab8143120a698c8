"""Parts of `train.py`: options, batches, optimiser, run folder, several processes."""
