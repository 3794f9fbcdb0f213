"""Is every frame of every medium accounted for, and every file of a results folder whole?"""
