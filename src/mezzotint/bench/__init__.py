"""What recipes cost: seconds, forwards, positions, FLOPs and memory side by side; and the search for the fastest recipe that keeps the quality."""
