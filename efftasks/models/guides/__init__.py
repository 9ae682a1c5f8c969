"""Knowledge distillation: guides, which own a teacher, and the terms that compare it with the student."""
