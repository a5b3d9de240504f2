"""The accuracy-regression report: score two engines, judge the difference, show where it is."""
