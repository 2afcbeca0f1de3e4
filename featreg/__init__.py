"""Pre-trained audio features, aligned in time, and small classifiers trained with them."""
