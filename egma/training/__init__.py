"""What `train_egma.py` is made of: arguments, batches, checkpoints."""
