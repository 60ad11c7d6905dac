"""Trains both stages of DeAR with transformers, PEFT and TRL."""
