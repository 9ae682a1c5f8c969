"""What gives objects masks: parts of detection heads, and heads of their own."""
