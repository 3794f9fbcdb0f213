"""Writes weights files, model cards and ONNX."""
