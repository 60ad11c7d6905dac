"""The choice of a model for this machine: `recommend`, whose twin is `dearlite models recommend`."""

from dearlite.recommend.choice import Candidate, Recommendation, recommend

__all__ = ["Candidate", "Recommendation", "recommend"]
