"""Names of models and model files. Nothing is run here."""
