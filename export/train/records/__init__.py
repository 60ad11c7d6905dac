"""Training records: their formats, reading, and mining from a collection with a teacher."""
