"""Networks, losses, loaders, training and evaluation on mmdgen datasets; everything here needs torch."""
