"""What computes: the models that the wheel carries, and those of the extras.

`face` finds faces and their landmarks, `segmentation` tells person from background, `matting`
turns a network's mask into a clean cut-out. Nothing is imported here: each module brings numpy
or more with it.
"""
