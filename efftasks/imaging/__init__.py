"""Pictures as arrays: reading, drawing, run lengths, crops, and predictions, which draw and write themselves.

numpy and OpenCV only, so that a device needs nothing else.
May import `structures`.
"""
