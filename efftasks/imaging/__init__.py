"""Images as arrays: reading, drawing, masks and run lengths, crops, and the `Prediction` of an image.

numpy and OpenCV only, so that a device needs nothing else.
May import `structures`.
"""
