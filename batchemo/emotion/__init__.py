"""Classifies expressions: the network, its weights, and inference in float and int8."""
