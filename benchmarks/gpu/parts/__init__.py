"""The parts, in the order in which they are run. Each module has GOAL, MINUTES (its share of half an hour), `cells(settings)` and `table(cells)`."""

NAMES = ("limits", "tuning", "attention", "pattern", "step", "long", "suffix", "prune", "train")
