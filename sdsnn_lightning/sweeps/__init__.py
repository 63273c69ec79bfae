"""`sdsnn sweep`: many runs of one experiment with other settings, on Ray Tune."""
