"""batchemo: emotion timelines of every face in folders of pictures and videos."""

__version__ = "0.1.0"
