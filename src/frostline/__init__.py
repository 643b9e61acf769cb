"""frostline: train a PyTorch model on top of pre-trained layers that stay frozen, provably, and are computed once."""
