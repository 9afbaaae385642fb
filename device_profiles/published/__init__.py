"""Published latencies, the networks they were measured on, and the fits made of them."""
