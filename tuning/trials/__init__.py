"""One trial after another in processes that are kept warm, as Ray Tune runs them."""
