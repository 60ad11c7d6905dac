"""Comparison of an exported file with fp32 and with published scores; calibration."""
