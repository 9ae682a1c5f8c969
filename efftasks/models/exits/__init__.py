"""Early exits of detectors, and the gates that decide which images leave there."""
