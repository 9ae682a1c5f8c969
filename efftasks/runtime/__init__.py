"""From an exported file to predictions: preprocessing, the session of a runtime, results in pixels of the image.

Runtimes are in `runtime/backends`. numpy, OpenCV and the runtime only: this is what a device installs.
May import `imaging`, `structures`, `zoo`.
"""
