"""The steps of a pipeline: detection, background, generation.

Nothing is imported here: each stage has its module.
"""
