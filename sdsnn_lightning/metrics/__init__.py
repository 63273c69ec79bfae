"""Metrics: emotion scores, spike rates, energy."""
