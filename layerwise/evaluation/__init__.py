"""What is measured and how: protocols, metrics, results, calibration."""
