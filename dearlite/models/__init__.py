"""Model names, chains of models, and the formats of model files. No model runs here."""
