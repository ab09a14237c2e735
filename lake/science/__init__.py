"""Sky, times and photometry: functions over Arrow and NumPy."""
