"""Weights of networks that others trained: where they lie, how they are written, and how they become a network's."""
