"""What gives objects keypoints: parts of detection heads, and heads of their own."""
