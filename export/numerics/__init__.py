"""Arrays in, arrays out: the fp32 reference, rotations and rounding, in NumPy."""
